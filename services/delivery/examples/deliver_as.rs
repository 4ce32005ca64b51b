//! The helper of `asUser` deliveries alone, as `posthouse deliver-as` runs it: the tests of this crate start it.

fn main() -> std::process::ExitCode {
    delivery::as_user::main(std::io::stdin().lock(), std::io::stdout().lock())
}
