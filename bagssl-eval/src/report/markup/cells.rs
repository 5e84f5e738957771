//! Lines of cells as CSV (RFC 4180).

use super::escape::as_cell;

/// Returns lines of cells as CSV. What a spreadsheet would take for a formula becomes text.
pub(crate) fn join(lines: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    for cells in lines {
        writer.write_record(cells.iter().map(|cell| as_cell(cell))).expect("lines in memory of one length");
    }
    String::from_utf8(writer.into_inner().expect("a file in memory")).expect("the cells are text")
}

pub(crate) fn head<const N: usize>(names: [&str; N]) -> std::iter::Once<Vec<String>> {
    std::iter::once(names.map(String::from).to_vec())
}
