//! Finds circular dependencies between the files of a crate.
//!
//! A file depends on another if it names an item defined there by a path from `crate`, `super` or
//! `self`. Re-exports are followed to the definition, so modules that only re-export are not
//! involved. Tests do not count, and neither do method calls, which no path names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

/// A module, as its path from the crate's root. The root's path is empty.
type Module = Vec<String>;

/// Returns what is wrong in a crate: circles, each with the names of its files, and excuses for none. A circle inside the folder of
/// a `mod.rs` is excused by a comment there that begins with `// Circle:` and says why.
pub(super) fn in_crate(source: &Path) -> Result<Vec<String>> {
    let mut sources = BTreeMap::new();
    for path in rust_files(source)? {
        let name = path.strip_prefix(source)?.to_string_lossy().replace('\\', "/");
        sources.insert(name, fs::read_to_string(&path).with_context(|| path.display().to_string())?);
    }
    Ok(unexcused(&among(&sources)?, &sources))
}

fn unexcused(circles: &[Vec<String>], sources: &BTreeMap<String, String>) -> Vec<String> {
    let has_excuse = |text: &str| text.lines().any(|line| line.trim_start().starts_with("// Circle:"));
    let mut excuses: BTreeSet<&String> =
        sources.iter().filter(|(_, text)| has_excuse(text)).map(|(name, _)| name).collect();
    let mut found = Vec::new();
    for circle in circles {
        let fits = |file: &&String| {
            let folder = file.strip_suffix("mod.rs");
            folder.is_some_and(|folder| circle.contains(file) && circle.iter().all(|other| other.starts_with(folder)))
        };
        match excuses.iter().copied().find(fits) {
            Some(file) => drop(excuses.remove(file)),
            None => found.push(format!("files that depend on each other: {}", circle.join(", "))),
        }
    }
    found.extend(excuses.into_iter().map(|file| format!("{file}: `// Circle:` without a circle in its folder")));
    found
}

/// Returns all Rust files in a folder and its subfolders.
pub(super) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the circles among files, given by name and text.
fn among(sources: &BTreeMap<String, String>) -> Result<Vec<Vec<String>>> {
    let mut files = BTreeMap::new();
    for (name, text) in sources.iter().filter(|(name, _)| !is_test(name)) {
        let parsed = syn::parse_file(text).with_context(|| name.clone())?;
        let mut found = Names::new(module_of(name));
        found.visit_file(&parsed);
        files.insert(module_of(name), (name.clone(), found));
    }
    let needs: BTreeMap<&Module, BTreeSet<Module>> = files
        .iter()
        .map(|(module, (_, names))| {
            let all = names.used.iter().filter_map(|path| definition(path, &files, 0));
            (module, all.filter(|other| other != module).collect())
        })
        .collect();
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        needs.keys().map(|module| (*module, reach(module, &needs))).collect();
    let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
    for (module, far) in &reached {
        if far.contains(module) {
            let circle = far.iter().filter(|other| reached[**other].contains(module));
            circles.insert(circle.map(|other| files[*other].0.clone()).collect());
        }
    }
    Ok(circles.into_iter().collect())
}

fn is_test(name: &str) -> bool {
    name == "main.rs" || name.split('/').any(|part| part == "tests" || part == "tests.rs")
}

fn module_of(name: &str) -> Module {
    let mut parts: Module = name.trim_end_matches(".rs").split('/').map(Into::into).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

/// Returns all modules that a module depends on, directly or indirectly.
fn reach<'a>(from: &Module, needs: &'a BTreeMap<&Module, BTreeSet<Module>>) -> BTreeSet<&'a Module> {
    let (mut found, mut next) = (BTreeSet::new(), vec![from.clone()]);
    while let Some(module) = next.pop() {
        for other in needs.get(&module).into_iter().flatten() {
            if found.insert(other) {
                next.push(other.clone());
            }
        }
    }
    found
}

/// Returns the module whose file defines the item at a path. Returns `None` if the path names a
/// module, since that alone uses no item.
fn definition(path: &[String], files: &BTreeMap<Module, (String, Names)>, depth: usize) -> Option<Module> {
    let length = (0..=path.len()).rev().find(|length| files.contains_key(&path[..*length]))?;
    let module = &path[..length];
    let name = path.get(length)?;
    let names = &files[module].1;
    if let Some(target) = names.imported.get(name).filter(|_| depth < 8) {
        let whole: Vec<String> = target.iter().chain(&path[length + 1..]).cloned().collect();
        return definition(&whole, files, depth + 1);
    }
    Some(module.to_vec())
}

/// The names that a file imports and uses.
struct Names {
    module: Module,
    /// The stack of enclosing inline modules.
    inner: Vec<String>,
    /// Paths from the crate's root, by the names under which `use` imports them.
    imported: BTreeMap<String, Vec<String>>,
    used: BTreeSet<Vec<String>>,
}

impl Names {
    fn new(module: Module) -> Self {
        Names { module, inner: Vec::new(), imported: BTreeMap::new(), used: BTreeSet::new() }
    }

    /// Returns the path from the crate's root, if the path is inside the crate. Resolves imported
    /// names.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let mut base: Vec<String> = self.module.iter().chain(&self.inner).cloned().collect();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    base.pop()?;
                    rest = &rest[1..];
                }
            }
            name => {
                let target = self.imported.get(name).filter(|_| path.len() > 1)?;
                return Some(target.iter().chain(&path[1..]).cloned().collect());
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    fn import(&mut self, tree: &UseTree, before: &[String], is_public: bool) {
        let join = |name: &str| before.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &join(&path.ident.to_string()), is_public),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, before, is_public)),
            UseTree::Name(name) if name.ident == "self" => self.add(before, None, is_public),
            UseTree::Name(name) => self.add(&join(&name.ident.to_string()), None, is_public),
            UseTree::Rename(rename) if rename.ident == "self" => {
                self.add(before, Some(rename.rename.to_string()), is_public);
            }
            UseTree::Rename(rename) => {
                self.add(&join(&rename.ident.to_string()), Some(rename.rename.to_string()), is_public);
            }
            UseTree::Glob(_) => {}
        }
    }

    fn add(&mut self, path: &[String], name: Option<String>, is_public: bool) {
        // A path without `crate`, `super` or `self` begins with another crate, or a module declared
        // here.
        let path = match path.first().map(String::as_str) {
            Some("crate" | "super" | "self") => self.absolute(path),
            Some(_) => Some(self.module.iter().chain(&self.inner).chain(path).cloned().collect()),
            None => None,
        };
        let Some(path) = path else { return };
        let Some(name) = name.or_else(|| path.last().cloned()) else { return };
        if !is_public {
            self.used.insert(path.clone());
        }
        self.imported.insert(name, path);
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| {
        let tokens = attribute.meta.require_list().map(|list| list.tokens.to_string()).unwrap_or_default();
        let mut words = tokens.split(|letter: char| !letter.is_alphanumeric());
        words.clone().any(|word| word == "test") && !words.any(|word| word == "not")
    };
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && is_test(attribute))
}

impl<'a> Visit<'a> for Names {
    fn visit_file(&mut self, file: &'a syn::File) {
        // Imports first: names may be used above the line that imports them.
        for item in &file.items {
            if let Item::Use(item) = item
                && !is_for_tests(&item.attrs)
            {
                self.import(&item.tree, &[], !matches!(item.vis, syn::Visibility::Inherited));
            }
        }
        visit::visit_file(self, file);
    }

    fn visit_item(&mut self, item: &'a Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        self.inner.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.inner.pop();
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.import(&item.tree, &[], !matches!(item.vis, syn::Visibility::Inherited));
    }

    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}

    fn visit_path(&mut self, path: &'a syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.used.extend(self.absolute(&parts));
        visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        among(&files.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()).unwrap()
    }

    #[test]
    fn circles_are_found() {
        let both = ["a.rs", "b.rs"];
        assert!(circles(&[("a.rs", "use crate::b::B;"), ("b.rs", "pub struct B;")]).is_empty());
        assert_eq!(circles(&[("a.rs", "use crate::b::B;"), ("b.rs", "use crate::a::A;")]), [both]);
        assert_eq!(
            circles(&[("a.rs", "fn f() { crate::b::g() }"), ("b.rs", "use super::a; fn g() { a::f() }")]),
            [both]
        );
        let three =
            [("a.rs", "use crate::b::B;"), ("b.rs", "use crate::c::{C, D as E};"), ("c.rs", "fn f(_: crate::a::A) {}")];
        assert_eq!(circles(&three), [["a.rs", "b.rs", "c.rs"]]);
    }

    #[test]
    fn names_may_be_imported_anywhere() {
        let b = ("b.rs", "use crate::a::A;");
        for a in [
            "fn f() { use crate::b::B; B::new() }",
            "mod c { use crate::b::B; }",
            "mod c { fn f(b: super::super::b::B) {} }",
        ] {
            assert_eq!(circles(&[("a.rs", a), b]), [["a.rs", "b.rs"]], "{a}");
        }
    }

    #[test]
    fn excuse_covers_its_own_folder() {
        let files = |files: &[(&str, &str)]| -> BTreeMap<String, String> {
            files.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect()
        };
        let found = |sources: &BTreeMap<String, String>| unexcused(&among(sources).unwrap(), sources);
        let (child, other) = (("a/b.rs", "use super::A;"), ("c.rs", "use crate::a::A;"));
        let parent = "// Circle: A is here.\nmod b; use b::B; pub struct A(B);";
        assert!(found(&files(&[("a/mod.rs", parent), child])).is_empty());
        let wider = format!("{parent} use crate::c::C;");
        assert_eq!(found(&files(&[("a/mod.rs", &wider), child, other])).len(), 2);
        assert_eq!(found(&files(&[("a/mod.rs", "// Circle: none."), child])).len(), 1);
    }

    #[test]
    fn re_exports_lead_to_the_definition() {
        let root = ("lib.rs", "mod a; mod e; pub use e::Error; pub use a::A;");
        let (a, e) = (("a.rs", "use crate::Error;"), ("e.rs", "pub struct Error;"));
        assert!(circles(&[root, a, e]).is_empty());
        assert_eq!(circles(&[root, a, ("e.rs", "use crate::A;")]), [["a.rs", "e.rs"]]);
        let parent = ("a/mod.rs", "mod b; pub use b::B; pub struct A;");
        assert_eq!(circles(&[parent, ("a/b.rs", "use super::A;")]), [] as [Vec<String>; 0]);
        let parent = ("a/mod.rs", "mod b; use b::B; pub struct A(B);");
        assert_eq!(circles(&[parent, ("a/b.rs", "use super::A;")]), [["a/mod.rs", "a/b.rs"]]);
    }

    #[test]
    fn tests_make_no_circle() {
        let a = ("a.rs", "pub fn f() {} #[cfg(all(test, unix))] mod tests { use crate::b::g; }");
        assert!(circles(&[a, ("b.rs", "use crate::a::f;"), ("a/tests.rs", "use crate::b::g;")]).is_empty());
    }
}
