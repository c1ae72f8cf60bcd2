//! The public API, as a listing that is committed beside this test: a change of it is seen in review.
//!
//! 1. `tests/public_api.txt` has every public type, function and method with its signature, and the traits that a type
//!    implements by hand. The kit (`test_util`) is not in it.
//! 2. Public signatures name types of std and of the crates in [`PUBLIC_CRATES`], and no others.
//!
//! After a change that is meant: `UPDATE_PUBLIC_API=1 cargo test --all-features --test public_api`.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources has failed")]
#![allow(clippy::print_stdout, reason = "a listing that grows says so")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use quote::ToTokens;
use syn::{Attribute, Fields, FnArg, GenericParam, Item, Meta, Signature, UseTree, Visibility};

/// Crates whose types may stand in public signatures: a promise to follow their major versions.
const PUBLIC_CRATES: [&str; 8] =
    ["std", "core", "http", "http_body", "bytes", "tower", "tower_layer", "tower_service"];

/// Crates whose types stand there all the same.
const TOLERATED: [(&str, &str); 3] = [
    ("serde", "what JSON is made of, and into"),
    ("reqwest", "the feature of that name is about its client"),
    ("futures_util", "its `Stream`, which is that of futures-core 0.3, for pages"),
];

const LISTING: &str = "tests/public_api.txt";

type ModPath = Vec<String>;
/// Where something is defined: the module and the name.
type Def = (ModPath, String);

#[test]
fn the_listing_is_the_public_api() {
    let api = Krate::read().api();
    let listing = Path::new(env!("CARGO_MANIFEST_DIR")).join(LISTING);
    let types = api.lines.iter().filter(|line| is_type(line)).count();
    let functions = api.lines.iter().filter(|line| line.contains("fn ")).count();
    let text = format!("{types} types, {functions} functions and methods\n\n{}\n", api.lines.join("\n"));
    println!("{LISTING}: {types} types, {functions} functions and methods");
    if std::env::var_os("UPDATE_PUBLIC_API").is_some() {
        fs::write(&listing, &text).unwrap();
    }
    let committed = fs::read_to_string(&listing).unwrap_or_default();
    let (now, before): (BTreeSet<_>, BTreeSet<_>) = (text.lines().collect(), committed.lines().collect());
    let added: Vec<_> = now.difference(&before).map(|line| format!("+ {line}")).collect();
    let gone: Vec<_> = before.difference(&now).map(|line| format!("- {line}")).collect();
    assert!(
        text == committed,
        "the public API differs from {LISTING}:\n{}\n{}\nif that is meant, run with UPDATE_PUBLIC_API=1",
        gone.join("\n"),
        added.join("\n")
    );
}

#[test]
fn public_signatures_name_stable_crates_alone() {
    let api = Krate::read().api();
    let stable = |name: &str| PUBLIC_CRATES.contains(&name);
    let tolerated = |name: &str| TOLERATED.iter().any(|(tolerated, _)| *tolerated == name);
    let foreign = api.foreign.iter().filter(|(name, _)| !stable(name) && !tolerated(name));
    let shown: Vec<_> = foreign.map(|(name, line)| format!("{name}: {line}")).collect();
    assert!(shown.is_empty(), "types of these crates stand in public signatures:\n{}", shown.join("\n"));
    for (name, _) in TOLERATED {
        assert!(api.foreign.iter().any(|(found, _)| found == name), "{name} need not be tolerated any more");
    }
}

fn is_type(line: &str) -> bool {
    ["struct ", "enum ", "trait ", "type "].iter().any(|kind| line.starts_with(kind))
}

// --- The crate ---

struct Krate {
    modules: BTreeMap<ModPath, Vec<Item>>,
}

#[derive(Default)]
struct Api {
    lines: Vec<String>,
    /// Crates named in signatures, and in which.
    foreign: BTreeSet<(String, String)>,
}

impl Krate {
    fn read() -> Self {
        let mut krate = Self { modules: BTreeMap::new() };
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        krate.file(&src.join("lib.rs"), &src, Vec::new());
        krate
    }

    fn file(&mut self, file: &Path, folder: &Path, module: ModPath) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let items =
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())).items;
        self.items(items, folder, module);
    }

    fn items(&mut self, items: Vec<Item>, folder: &Path, module: ModPath) {
        for item in &items {
            let Item::Mod(inner) = item else { continue };
            if is_test(&inner.attrs) {
                continue;
            }
            let name = inner.ident.to_string();
            let below = join(&module, &name);
            match &inner.content {
                Some((_, items)) => self.items(items.clone(), &folder.join(&name), below),
                None => {
                    let own = [folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")];
                    let file: &PathBuf = own.iter().find(|file| file.exists()).unwrap();
                    self.file(file, &folder.join(&name), below);
                }
            }
        }
        self.modules.insert(module, items);
    }

    fn api(&self) -> Api {
        let mut defs: BTreeMap<Def, String> = BTreeMap::new();
        self.reach(&Vec::new(), &Vec::new(), &mut defs);
        let mut api = Api::default();
        for ((module, name), public) in &defs {
            self.list(module, name, public, &defs, &mut api);
        }
        api.lines.sort_by_key(|line| sort_key(line));
        api.lines.dedup();
        api
    }

    /// Finds what a public module shows, under the shortest of its public names.
    fn reach(&self, module: &ModPath, public: &ModPath, defs: &mut BTreeMap<Def, String>) {
        for item in &self.modules[module] {
            match item {
                Item::Mod(inner) if is_public(&inner.vis) && inner.ident != "test_util" => {
                    let name = inner.ident.to_string();
                    let step = |path: &ModPath| join(path, &name);
                    self.reach(&step(module), &step(public), defs);
                }
                Item::Use(used) if is_public(&used.vis) => {
                    for (path, name) in leaves(&used.tree) {
                        if let Some(def) = self.resolve(module, &path) {
                            show(defs, def, public, &name);
                        }
                    }
                }
                item => {
                    if let Some((vis, name)) = named(item)
                        && is_public(vis)
                    {
                        show(defs, (module.clone(), name.clone()), public, &name);
                    }
                }
            }
        }
    }

    /// Follows a path from a module to where its last name is defined, through other `use`s. None if that is elsewhere.
    fn resolve(&self, module: &ModPath, path: &[String]) -> Option<Def> {
        let (first, rest) = path.split_first()?;
        let start = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            name => {
                let below = join(module, name);
                if rest.is_empty() {
                    return self.look(module, name);
                }
                if !self.modules.contains_key(&below) {
                    let (path, _) = self.imports(module).remove(name)?;
                    return self.resolve(module, &[&path[..], rest].concat());
                }
                below
            }
        };
        match rest {
            [] => None,
            [name] => self.look(&start, name),
            more => self.resolve(&start, more),
        }
    }

    fn look(&self, module: &ModPath, name: &str) -> Option<Def> {
        let items = self.modules.get(module)?;
        if items.iter().filter_map(named).any(|(_, own)| own == name) {
            return Some((module.clone(), name.to_owned()));
        }
        let (path, _) = self.imports(module).remove(name)?;
        (path.first().is_some_and(|first| ["crate", "self", "super"].contains(&first.as_str()))
            || self.is_below(module, &path))
        .then(|| self.resolve(module, &path))?
    }

    fn is_below(&self, module: &ModPath, path: &[String]) -> bool {
        path.first().is_some_and(|first| self.modules.contains_key(&join(module, first)))
    }

    /// Returns what the `use`s of a module bring in: the name, its path, and whether it is public.
    fn imports(&self, module: &ModPath) -> BTreeMap<String, (Vec<String>, bool)> {
        let mut found = BTreeMap::new();
        for item in self.modules.get(module).into_iter().flatten() {
            if let Item::Use(used) = item {
                for (path, name) in leaves(&used.tree) {
                    found.insert(name, (path, is_public(&used.vis)));
                }
            }
        }
        found
    }

    fn list(&self, module: &ModPath, name: &str, public: &str, defs: &BTreeMap<Def, String>, api: &mut Api) {
        for item in &self.modules[module] {
            if named(item).is_none_or(|(_, own)| own != name) {
                continue;
            }
            let mut line = |text: String, tokens: &dyn ToTokens| self.line(module, text, tokens, api);
            match item {
                Item::Struct(item) => {
                    let generics = &item.generics;
                    line(format!("struct {public}{}", text(generics)), generics);
                    if let Fields::Named(fields) = &item.fields {
                        for field in fields.named.iter().filter(|field| is_public(&field.vis)) {
                            let name = field.ident.as_ref().unwrap();
                            line(format!("{public}.{name}: {}", text(&field.ty)), &field.ty);
                        }
                    }
                }
                Item::Enum(item) => {
                    line(format!("enum {public}{}", text(&item.generics)), &item.generics);
                    for variant in &item.variants {
                        line(
                            format!("{public}::{}{}", variant.ident, text(&variant.fields)),
                            &variant.fields,
                        );
                    }
                }
                Item::Trait(item) => {
                    let bounds = &item.supertraits;
                    line(format!("trait {public}{}: {}", text(&item.generics), text(bounds)), bounds);
                    for item in &item.items {
                        match item {
                            syn::TraitItem::Fn(item) => {
                                line(format!("{public}::{}", shown(&item.sig)), &item.sig)
                            }
                            syn::TraitItem::Type(item) => {
                                line(format!("{public}::type {}", text(&item.bounds)), &item.bounds)
                            }
                            _ => {}
                        }
                    }
                }
                Item::Type(item) => {
                    line(format!("type {public}{} = {}", text(&item.generics), text(&item.ty)), &item.ty)
                }
                Item::Fn(item) => line(format!("{public}: {}", shown(&item.sig)), &item.sig),
                Item::Const(item) => line(format!("const {public}: {}", text(&item.ty)), &item.ty),
                _ => {}
            }
        }
        // Its methods and traits may stand in any module.
        for (at, items) in &self.modules {
            for item in items {
                if let Item::Macro(of_traits) = item
                    && of_traits.mac.path.is_ident("plain_grant")
                    && of_traits
                        .mac
                        .tokens
                        .clone()
                        .into_iter()
                        .next()
                        .is_some_and(|own| own.to_string() == name)
                {
                    // Grants that differ by their parameters alone have their traits from a macro.
                    api.lines.extend(["Grant", "TokenSource"].map(|of| format!("{public}: impl {of}")));
                }
                let Item::Impl(item) = item else { continue };
                let syn::Type::Path(own) = &*item.self_ty else { continue };
                let path: Vec<String> =
                    own.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
                if is_test(&item.attrs) || self.resolve(at, &path) != Some((module.clone(), name.to_owned()))
                {
                    continue;
                }
                self.list_impl(at, item, public, defs, api);
            }
        }
    }

    fn list_impl(
        &self,
        at: &ModPath,
        item: &syn::ItemImpl,
        public: &str,
        defs: &BTreeMap<Def, String>,
        api: &mut Api,
    ) {
        if let Some((_, of, _)) = &item.trait_ {
            let path: Vec<String> = of.segments.iter().map(|segment| segment.ident.to_string()).collect();
            let private = self.resolve(at, &path).is_some_and(|def| !defs.contains_key(&def));
            if !private && path.last().is_none_or(|name| name != "Debug" && name != "Display") {
                self.line(
                    at,
                    format!("{public}: impl {}", text(of)),
                    item.trait_.as_ref().map(|(_, of, _)| of),
                    api,
                );
            }
            return;
        }
        for inner in &item.items {
            match inner {
                syn::ImplItem::Fn(inner) if is_public(&inner.vis) => {
                    self.line(at, format!("{public}::{}", shown(&inner.sig)), &inner.sig, api);
                }
                syn::ImplItem::Const(inner) if is_public(&inner.vis) => {
                    self.line(
                        at,
                        format!("{public}::const {}: {}", inner.ident, text(&inner.ty)),
                        &inner.ty,
                        api,
                    );
                }
                _ => {}
            }
        }
    }

    fn line(&self, module: &ModPath, line: String, signature: impl ToTokens, api: &mut Api) {
        let mut paths: Vec<Vec<String>> = Vec::new();
        // What has no syntax of its own is read as a list of tokens.
        for token in signature
            .to_token_stream()
            .to_string()
            .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':' && c != ' ')
        {
            for path in token.replace(" :: ", "::").split(' ').filter(|path| !path.is_empty()) {
                paths.push(path.split("::").map(str::to_owned).collect());
            }
        }
        let imports = self.imports(module);
        for path in paths {
            let Some(first) = path.first() else { continue };
            let root = match imports.get(first) {
                Some((path, _)) => path.first().cloned().unwrap_or_default(),
                None if path.len() > 1 => first.clone(),
                None => continue,
            };
            let own = ["crate", "self", "super", "Self", ""].contains(&root.as_str())
                || root.chars().next().is_some_and(char::is_uppercase)
                || self.modules.contains_key(&join(module, &root));
            if !own {
                api.foreign.insert((root, line.clone()));
            }
        }
        api.lines.push(line);
    }
}

// --- Syntax ---

fn join(path: &[String], name: &str) -> ModPath {
    path.iter().cloned().chain([name.to_owned()]).collect()
}

fn show(defs: &mut BTreeMap<Def, String>, def: Def, public: &ModPath, name: &str) {
    let full = join(public, name).join("::");
    let shorter = defs.get(&def).is_none_or(|known| full.len() < known.len());
    if shorter {
        defs.insert(def, full);
    }
}

fn named(item: &Item) -> Option<(&Visibility, String)> {
    let (vis, ident) = match item {
        Item::Struct(item) => (&item.vis, &item.ident),
        Item::Enum(item) => (&item.vis, &item.ident),
        Item::Trait(item) => (&item.vis, &item.ident),
        Item::Type(item) => (&item.vis, &item.ident),
        Item::Fn(item) => (&item.vis, &item.sig.ident),
        Item::Const(item) => (&item.vis, &item.ident),
        _ => return None,
    };
    Some((vis, ident.to_string()))
}

/// Returns the leaves of a `use`: the path, and the name that it gets.
fn leaves(tree: &UseTree) -> Vec<(Vec<String>, String)> {
    match tree {
        UseTree::Path(path) => {
            let first = path.ident.to_string();
            let below = leaves(&path.tree).into_iter();
            below
                .map(|(path, name)| {
                    let name = if name == "self" { first.clone() } else { name };
                    let path: Vec<String> = path.into_iter().filter(|part| part != "self").collect();
                    (std::iter::once(first.clone()).chain(path).collect(), name)
                })
                .collect()
        }
        UseTree::Name(name) => vec![(vec![name.ident.to_string()], name.ident.to_string())],
        UseTree::Rename(rename) => vec![(vec![rename.ident.to_string()], rename.rename.to_string())],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
        UseTree::Glob(_) => Vec::new(),
    }
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

fn is_test(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| match &attr.meta {
        Meta::List(list) => attr.path().is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

/// Shows a signature on one line, without the bodies of patterns.
fn shown(sig: &Signature) -> String {
    let generics: Vec<_> = sig
        .generics
        .params
        .iter()
        .filter(|param| !matches!(param, GenericParam::Lifetime(_)))
        .map(text)
        .collect();
    let generics = if generics.is_empty() { String::new() } else { format!("<{}>", generics.join(", ")) };
    let inputs: Vec<_> = sig
        .inputs
        .iter()
        .map(|input| match input {
            FnArg::Receiver(own) => text(own).replace("mut self", "self"),
            FnArg::Typed(typed) => text(&typed.ty),
        })
        .collect();
    let kind = if sig.asyncness.is_some() { "async fn" } else { "fn" };
    let bounds =
        sig.generics.where_clause.as_ref().map_or(String::new(), |bounds| format!(" {}", text(bounds)));
    format!(
        "{kind} {}{generics}({}){}{bounds}",
        sig.ident,
        inputs.join(", "),
        match &sig.output {
            syn::ReturnType::Default => String::new(),
            output => format!(" {}", text(output)),
        }
    )
}

/// Shows syntax as it is usually written.
fn text(tokens: &(impl ToTokens + ?Sized)) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (spaced, close) in [
        (" :: ", "::"),
        (":: ", "::"),
        (" < ", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        ("& ", "&"),
        ("( ", "("),
        (" )", ")"),
        (" (", "("),
        ("[ ", "["),
        (" ]", "]"),
        (" :", ":"),
        (",)", ")"),
        (", }", " }"),
        ("->", " ->"),
        ("  ", " "),
        (" ;", ";"),
        ("' ", "'"),
    ] {
        text = text.replace(spaced, close);
    }
    text.trim().to_owned()
}

/// Types come first, each with what belongs to it behind it.
fn sort_key(line: &str) -> (String, bool, String) {
    let bare =
        ["struct ", "enum ", "trait ", "type ", "const "].iter().find_map(|kind| line.strip_prefix(kind));
    let name = bare.unwrap_or(line);
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(name.len());
    let path = name[..end].trim_end_matches(':');
    let owner: Vec<&str> = path.split("::").collect();
    let upto = owner.iter().position(|part| part.chars().next().is_some_and(char::is_uppercase));
    let owner = upto.map_or(path.to_owned(), |at| owner[..=at].join("::"));
    (owner, bare.is_none(), line.to_owned())
}
