use types::Address;

/// The line that final delivery puts in front: the envelope sender (RFC 5321 section 4.4), `None` for the null reverse-path.
pub fn return_path(sender: Option<&Address>) -> String {
    match sender {
        Some(sender) => format!("Return-Path: <{sender}>\r\n"),
        None => "Return-Path: <>\r\n".to_owned(),
    }
}

/// The line that final delivery puts below the return path: the address that the outside wrote to.
pub fn delivered_to(recipient: &Address) -> String {
    format!("Delivered-To: {recipient}\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_lines_hold_one_address() {
        let address = Address::parse("\"a b\"@example.org").unwrap();
        assert_eq!(return_path(Some(&address)), "Return-Path: <\"a b\"@example.org>\r\n");
        assert_eq!(return_path(None), "Return-Path: <>\r\n");
        assert_eq!(delivered_to(&address), "Delivered-To: \"a b\"@example.org\r\n");
    }
}
