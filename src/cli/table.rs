//! Tables with the original's columns: left-aligned, two blanks between, the last column free.

/// A table's widths. Cells wider than their column push the rest to the right, as in the original.
#[derive(Clone, Copy, Debug)]
pub struct Table<const N: usize> {
    widths: [usize; N],
}

impl<const N: usize> Table<N> {
    /// A table whose last width is of no consequence.
    #[must_use]
    pub const fn new(widths: [usize; N]) -> Self {
        Self { widths }
    }

    /// One row, without trailing blanks. Control characters are replaced: a cell can hold what a remote host said.
    #[must_use]
    pub fn row(&self, cells: [&str; N]) -> String {
        let padded: Vec<String> = cells.iter().zip(self.widths).map(|(cell, width)| pad(cell, width)).collect();
        padded.join("  ").trim_end().to_owned()
    }
}

fn pad(cell: &str, width: usize) -> String {
    let clean: String = cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("{clean:<width$}")
}

/// The line under a header.
#[must_use]
pub fn rule(length: usize) -> String {
    "-".repeat(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_padded_and_nothing_trails() {
        let table = Table::new([5, 3, 0]);
        assert_eq!(table.row(["a", "b", "c"]), "a      b    c");
        assert_eq!(table.row(["a", "", ""]), "a");
        assert_eq!(table.row(["longer", "b", "x\x1b[31m"]), "longer  b    x?[31m");
    }
}
