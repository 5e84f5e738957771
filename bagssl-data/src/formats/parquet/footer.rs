//! Parquet's footer: the positions of the image and label columns.
//!
//! # Source
//! Apache Parquet, `parquet.thrift`. Hugging Face's `datasets` stores its features as JSON under
//! the key `huggingface`.

use super::refusal::{Refusal, refusal};
use super::thrift::{self, Value};
use crate::error::one_line;
use crate::formats::parquet::columns::Columns;

/// The parts of a footer that are needed.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) groups: Vec<Group>,
    /// The names of the classes, if the schema has them.
    pub(crate) names: Option<Vec<String>>,
    /// A description of the selected columns.
    pub(crate) columns: String,
}

/// A row group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) rows: u64,
    pub(crate) image: Chunk,
    /// `None` if there are no labels.
    pub(crate) label: Option<Chunk>,
}

/// A column chunk: one column of a row group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) codec: i64,
    pub(crate) kind: i64,
    /// The definition level of a present value: 0 if no value can be null.
    pub(crate) level: u32,
}

/// A leaf of the schema: its index among the columns, its path, its physical type and its
/// definition level.
#[derive(Debug)]
struct Leaf {
    column: usize,
    path: Vec<String>,
    kind: i64,
    level: u32,
    is_repeated: bool,
    is_text: bool,
}

pub(super) const INT32: i64 = 1;
pub(super) const INT64: i64 = 2;
pub(super) const BYTES: i64 = 6;

/// Parses the footer of a file of `length` bytes.
pub(crate) fn read(bytes: &[u8], length: u64, columns: &Columns) -> Result<Footer, Refusal> {
    let (meta, _) = thrift::read(bytes).ok_or_else(|| refusal("a valid footer", "an unreadable one"))?;
    let wrong = |what: &'static str| move || refusal("a footer with all fields", format!("one without {what}"));
    let leaves = leaves(meta.list(2).ok_or_else(wrong("schema"))?)?;
    let features = Features::read(&meta);
    let image = features.image(&leaves, columns.image.as_deref())?;
    let label = features.label(&leaves, columns.label.as_deref())?;
    let mut groups = Vec::new();
    for group in meta.list(4).ok_or_else(wrong("row_groups"))? {
        let rows = group.count(3).ok_or_else(wrong("num_rows"))?;
        let columns = group.list(1).ok_or_else(wrong("columns"))?;
        let label = label.map(|label| chunk(columns, label, length)).transpose()?;
        groups.push(Group { rows, image: chunk(columns, image, length)?, label });
    }
    // Each row has an image, whose length takes at least four bytes. So no file has more rows than
    // bytes.
    let rows = groups.iter().try_fold(0_u64, |sum, group| sum.checked_add(group.rows)).unwrap_or(u64::MAX);
    if rows > length {
        return Err(refusal("fewer rows than bytes", format!("{rows} rows in {length} bytes")));
    }
    let labels = label.map_or_else(|| features.without_labels(&leaves), |label| format!("labels in {}", label.path[0]));
    let names = label.and_then(|label| features.names(label));
    Ok(Footer { groups, names, columns: format!("images in {}, {labels}", image.path[0]) })
}

/// Returns the leaf columns of a schema. The schema lists the nodes of a tree in depth-first order.
fn leaves(schema: &[Value<'_>]) -> Result<Vec<Leaf>, Refusal> {
    let wrong = || refusal("a schema tree of at most 16 levels", "another schema");
    let mut leaves = Vec::new();
    // For each open node: its name, the number of remaining children, its level, and whether it is
    // repeated.
    let mut open: Vec<(String, u64, u32, bool)> = Vec::new();
    for (number, node) in schema.iter().enumerate() {
        let children = node.count(5).unwrap_or(0);
        let name = node.text(4).ok_or_else(wrong)?.to_string();
        let repetition = if number == 0 { 0 } else { node.number(3).unwrap_or(0) };
        let (level, repeated) = open.last().map_or((0, false), |(.., level, repeated)| (*level, *repeated));
        let (level, repeated) = (level + u32::from(repetition != 0), repeated || repetition == 2);
        if let Some((_, left, ..)) = open.last_mut() {
            *left = left.checked_sub(1).ok_or_else(wrong)?;
        } else if number > 0 {
            return Err(wrong());
        }
        if children == 0 {
            let path = open.iter().skip(1).map(|(name, ..)| name.clone()).chain([name]).collect();
            let kind = node.number(1).unwrap_or(-1);
            // The old annotation and the new one.
            let is_text = node.number(6) == Some(0) || node.field(10).is_some_and(|logical| logical.field(1).is_some());
            leaves.push(Leaf { column: leaves.len(), path, kind, level, is_repeated: repeated, is_text });
        } else {
            open.push((name, children, level, repeated));
        }
        while open.last().is_some_and(|(_, left, ..)| *left == 0) {
            open.pop();
        }
        if open.len() > 16 {
            return Err(wrong());
        }
    }
    Ok(leaves)
}

/// Returns the position of a column chunk after checking that it is inside the file.
fn chunk(columns: &[Value<'_>], leaf: &Leaf, length: u64) -> Result<Chunk, Refusal> {
    let wrong = || refusal("a column chunk inside the file", format!("an invalid one for {}", leaf.path.join(".")));
    let column = columns.get(leaf.column).ok_or_else(wrong)?;
    if column.text(1).is_some() {
        return Err(refusal("all columns in one file", "one in another file"));
    }
    let Some(Value::Struct(_)) = column.field(3) else { return Err(wrong()) };
    let meta = column.field(3).ok_or_else(wrong)?;
    let data = meta.count(9).ok_or_else(wrong)?;
    let offset = meta.count(11).filter(|dictionary| *dictionary > 0 && *dictionary < data).unwrap_or(data);
    let bytes = meta.count(7).ok_or_else(wrong)?;
    offset.checked_add(bytes).filter(|end| *end <= length).ok_or_else(wrong)?;
    let codec = meta.number(4).ok_or_else(wrong)?;
    Ok(Chunk { offset, length: bytes, codec, kind: leaf.kind, level: leaf.level })
}

/// Hugging Face's description of the columns as JSON; null if there is none.
struct Features(serde_json::Value);

impl Features {
    fn read(meta: &Value<'_>) -> Self {
        let pairs = meta.list(5).unwrap_or_default();
        let text = pairs.iter().find(|pair| pair.text(1) == Some("huggingface")).and_then(|pair| pair.text(2));
        let json: Option<serde_json::Value> = text.and_then(|text| serde_json::from_str(text).ok());
        Features(json.map_or(serde_json::Value::Null, |json| json["info"]["features"].clone()))
    }

    /// Returns whether the description gives a column this type.
    fn is(&self, column: &str, kind: &str) -> bool {
        self.0[column]["_type"] == kind
    }

    /// Returns the image column: the requested one, or else `image` or `img`, or else the only
    /// possible one.
    fn image<'a>(&self, leaves: &'a [Leaf], wanted: Option<&str>) -> Result<&'a Leaf, Refusal> {
        let is_bytes = |leaf: &Leaf| match &leaf.path[..] {
            [_, inner] => inner == "bytes",
            [_] => !leaf.is_text,
            _ => false,
        };
        let usable = || leaves.iter().filter(|leaf| is_bytes(leaf) && leaf.kind == BYTES && !leaf.is_repeated);
        let named = |name: &str| usable().find(|leaf| leaf.path[0] == name);
        if let Some(wanted) = wanted {
            return named(wanted).ok_or_else(|| none("--image-column: a column of byte arrays", leaves));
        }
        if let Some(found) = named("image").or_else(|| named("img")) {
            return Ok(found);
        }
        let said: Vec<&Leaf> = usable().filter(|leaf| self.is(&leaf.path[0], "Image")).collect();
        let structs: Vec<&Leaf> = usable().filter(|leaf| leaf.path.len() == 2).collect();
        match (&said[..], &structs[..]) {
            ([one], _) | ([], [one]) => Ok(one),
            ([], []) => Err(none("image.bytes (byte array), or a column of byte arrays with --image-column", leaves)),
            ([], several) | (several, _) => {
                let names: Vec<&str> = several.iter().map(|leaf| leaf.path[0].as_str()).collect();
                Err(refusal("one column of images, or --image-column", one_line(&names.join(", "))))
            }
        }
    }

    /// Returns the label column: the requested one, or else the first of `label`, `fine_label` and
    /// `labels` that exists, or else the first column described as a class label. Labels are
    /// optional.
    fn label<'a>(&self, leaves: &'a [Leaf], wanted: Option<&str>) -> Result<Option<&'a Leaf>, Refusal> {
        let usable = || leaves.iter().filter(|leaf| is_number(leaf));
        let named = |name: &str| usable().find(|leaf| leaf.path[0] == name);
        if let Some(wanted) = wanted {
            return named(wanted).map(Some).ok_or_else(|| none("--label-column: a column of int32 or int64", leaves));
        }
        let said = || usable().find(|leaf| self.is(&leaf.path[0], "ClassLabel"));
        Ok(LABELS.into_iter().find_map(named).or_else(said))
    }

    /// Explains why there are no labels.
    fn without_labels(&self, leaves: &[Leaf]) -> String {
        let other = leaves.iter().find(|leaf| LABELS.contains(&leaf.path[0].as_str()) && !is_number(leaf));
        other.map_or("no labels".into(), |leaf| {
            format!("no labels ({} is {}, not int32 or int64)", leaf.path[0], leaf.kind())
        })
    }

    fn names(&self, label: &Leaf) -> Option<Vec<String>> {
        let names = self.0[&label.path[0]]["names"].as_array()?;
        names.iter().map(|name| name.as_str().map(Into::into)).collect()
    }
}

/// The names of label columns, in order of preference.
const LABELS: [&str; 3] = ["label", "fine_label", "labels"];

fn is_number(leaf: &Leaf) -> bool {
    leaf.path.len() == 1 && [INT32, INT64].contains(&leaf.kind) && !leaf.is_repeated
}

impl Leaf {
    /// Returns the name of the column's type, for error messages.
    fn kind(&self) -> &'static str {
        let known = ["boolean", "int32", "int64", "int96", "float", "double", "byte array", "fixed byte array"];
        let kind = usize::try_from(self.kind).ok().and_then(|kind| known.get(kind));
        match kind {
            _ if self.is_repeated => "list",
            _ if self.is_text => "text",
            kind => kind.copied().unwrap_or("an unknown type"),
        }
    }
}

fn none(expected: &'static str, leaves: &[Leaf]) -> Refusal {
    let all: Vec<String> = leaves.iter().map(|leaf| format!("{} ({})", leaf.path.join("."), leaf.kind())).collect();
    refusal(expected, one_line(&format!("columns {}", all.join(", "))))
}
