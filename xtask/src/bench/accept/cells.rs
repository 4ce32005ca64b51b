//! What is measured: size x connections x what a connection carries.

use std::fmt;

/// What one connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Many messages (`smtp-source -d`).
    Keep,
    /// One message; a new connection for each.
    New,
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cell {
    pub size_kib: u64,
    pub connections: u64,
    pub mode: Mode,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Keep => "many",
            Mode::New => "one",
        };
        write!(f, "{} KiB, {} conn., {mode}", self.size_kib, self.connections)
    }
}

const CONNECTIONS: [u64; 3] = [1, 10, 100];

/// How much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// 10 KiB, many messages per connection.
    Quick,
    /// Every size and mode.
    Full,
}

impl Form {
    pub fn cells(self) -> Vec<Cell> {
        let (sizes, modes): (&[u64], &[Mode]) = match self {
            Self::Quick => (&[10], &[Mode::Keep]),
            Self::Full => (&[1, 10, 100], &[Mode::Keep, Mode::New]),
        };
        let mut cells = Vec::new();
        for &size_kib in sizes {
            for &mode in modes {
                cells.extend(CONNECTIONS.map(|connections| Cell { size_kib, connections, mode }));
            }
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_form_is_a_part_of_the_full_one() {
        let full = Form::Full.cells();
        assert_eq!(full.len(), 18);
        let quick = Form::Quick.cells();
        assert_eq!(quick.len(), 3);
        assert!(quick.iter().all(|cell| full.contains(cell)));
    }
}
