//! Writes documents, a path or a definition at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use serde_json::{Value, json};

use super::{
    Content, Document,
    definitions::{Definitions, references},
    operations::PathItem,
    paths,
    protobuf::{self, Section},
    resources::resources,
    v2, v3,
};

/// How a document is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    Json,
    /// As gnostic's message.
    Protobuf,
}

/// A kind that upstream registers in every group and version; a document of v3 names its own.
const EVERYWHERE: [&str; 2] = [
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
];

/// Writes a document of v3. `version` is the server's.
pub fn write_v3(
    document: &Document,
    version: &str,
    form: Form,
    out: &mut dyn Write,
) -> io::Result<()> {
    let definitions = Definitions::unpack()?;
    let paths = document.paths(&definitions);
    let own = document.own();
    let mut names = used(&paths, &own);
    definitions.close(&mut names);
    let mut writer = Writer::new(form, &protobuf::V3, out)?;
    writer.field("openapi", &"3.0.0".into())?;
    writer.field("info", &json!({"title": "Kubernetes", "version": version}))?;
    writer.open(&protobuf::V3_PATHS)?;
    for (path, item) in &paths {
        writer.entry(path, &v3::path(item))?;
    }
    writer.close()?;
    writer.open_components()?;
    if !names.is_empty() {
        writer.open(&protobuf::V3_SCHEMAS)?;
        for name in &names {
            match (definitions.get(name), own.get(name)) {
                (_, Some(schema)) => writer.entry(name, schema)?,
                (Some(json), _) if EVERYWHERE.contains(&name.as_str()) => {
                    writer.entry(name, &document.narrowed(json)?)?;
                }
                (Some(json), _) => writer.entry_json(name, json)?,
                (None, None) => {}
            }
        }
        writer.close()?;
    }
    writer.field("securitySchemes", &json!({"BearerToken": bearer_token()}))?;
    writer.close_components()?;
    writer.finish()
}

/// Writes all documents as one of v2.
pub fn write_v2<'a>(
    documents: impl IntoIterator<Item = &'a Document>,
    version: &str,
    form: Form,
    out: &mut dyn Write,
) -> io::Result<()> {
    let definitions = Definitions::unpack()?;
    let (mut names, mut own) = (BTreeSet::new(), BTreeMap::new());
    let mut paths = BTreeMap::new();
    for document in documents {
        let of = document.paths(&definitions);
        let schemas = document.own();
        names.append(&mut used(&of, &schemas));
        own.extend(schemas);
        paths.extend(of);
    }
    definitions.close(&mut names);
    let mut writer = Writer::new(form, &protobuf::V2, out)?;
    writer.field("swagger", &"2.0".into())?;
    writer.field("info", &json!({"title": "Kubernetes", "version": version}))?;
    let mut shared = v2::Shared::new();
    writer.open(&protobuf::V2_PATHS)?;
    while let Some((path, item)) = paths.pop_first() {
        writer.entry(&path, &v2::path(&item, &mut shared))?;
    }
    writer.close()?;
    writer.open(&protobuf::V2_DEFINITIONS)?;
    for name in &names {
        let schema = match (own.remove(name), definitions.get(name)) {
            (Some(schema), _) => schema,
            (None, Some(json)) => serde_json::from_str(json)?,
            (None, None) => continue,
        };
        writer.entry(name, &v2::schema(schema))?;
    }
    writer.close()?;
    writer.open(&protobuf::V2_PARAMETERS)?;
    for (name, parameter) in &shared {
        writer.entry(name, parameter)?;
    }
    writer.close()?;
    writer.field(
        "securityDefinitions",
        &json!({"BearerToken": bearer_token()}),
    )?;
    writer.field("security", &json!([{"BearerToken": []}]))?;
    writer.finish()
}

fn bearer_token() -> Value {
    json!({
        "description": "Bearer Token authentication",
        "in": "header",
        "name": "authorization",
        "type": "apiKey",
    })
}

/// The names of the definitions that paths and definitions name.
fn used(paths: &BTreeMap<String, PathItem>, own: &BTreeMap<String, Value>) -> BTreeSet<String> {
    let operations = paths.values().flat_map(|item| &item.operations);
    let mut names: BTreeSet<String> = operations
        .flat_map(|operation| operation.definitions())
        .cloned()
        .collect();
    for (name, schema) in own {
        names.insert(name.clone());
        names.extend(references(&schema.to_string()).map(str::to_owned));
    }
    names
}

impl Document {
    fn paths(&self, definitions: &Definitions) -> BTreeMap<String, PathItem> {
        match &self.content {
            Content::Fixed(of) => BTreeMap::from([paths::fixed(of)]),
            Content::Group(name) => BTreeMap::from([paths::group(name)]),
            Content::Resources {
                group,
                version,
                kinds,
                schemas,
            } => resources(group, version, kinds, schemas.is_some(), definitions),
        }
    }

    /// The definitions that are not built in.
    fn own(&self) -> BTreeMap<String, Value> {
        match &self.content {
            Content::Resources {
                schemas: Some(schemas),
                ..
            } => schemas.definitions(),
            _ => BTreeMap::new(),
        }
    }

    /// A definition that names kinds of many groups, with those of this document.
    fn narrowed(&self, json: &str) -> io::Result<Value> {
        let mut schema: Value = serde_json::from_str(json)?;
        let kinds = schema.get_mut("x-kubernetes-group-version-kind");
        if let Some(Value::Array(kinds)) = kinds
            && let Content::Resources { group, version, .. } = &self.content
        {
            kinds.retain(|kind| {
                kind["group"] == "" || kind["group"] == **group && kind["version"] == **version
            });
        }
        Ok(schema)
    }
}

/// Writes an object of which some members are written entry by entry.
struct Writer<'a> {
    form: Form,
    document: &'static protobuf::Shape,
    out: &'a mut dyn Write,
    /// The members that are open, with what has been written of them in protobuf, which puts
    /// lengths first.
    open: Vec<(&'static Section, Vec<u8>)>,
    first: bool,
}

impl<'a> Writer<'a> {
    fn new(
        form: Form,
        document: &'static protobuf::Shape,
        out: &'a mut dyn Write,
    ) -> io::Result<Self> {
        if form == Form::Json {
            out.write_all(b"{")?;
        }
        Ok(Writer {
            form,
            document,
            out,
            open: Vec::new(),
            first: true,
        })
    }

    /// Whole members of the document or of what is open.
    fn field(&mut self, name: &str, value: &Value) -> io::Result<()> {
        match self.form {
            Form::Json => {
                self.key(name)?;
                serde_json::to_writer(&mut *self.out, value)?;
            }
            Form::Protobuf => {
                let shape = self
                    .open
                    .last()
                    .map_or(self.document, |(section, _)| section.of);
                let mut bytes = Vec::new();
                protobuf::encode(shape, &json!({name: value}), &mut bytes);
                match self.open.last_mut() {
                    Some((_, open)) => open.append(&mut bytes),
                    None => self.out.write_all(&bytes)?,
                }
            }
        }
        Ok(())
    }

    fn key(&mut self, name: &str) -> io::Result<()> {
        if !std::mem::take(&mut self.first) {
            self.out.write_all(b",")?;
        }
        serde_json::to_writer(&mut *self.out, name)?;
        self.out.write_all(b":")
    }

    /// Begins a member.
    fn open(&mut self, section: &'static Section) -> io::Result<()> {
        if self.form == Form::Json {
            self.key(section.name)?;
            self.out.write_all(b"{")?;
            self.first = true;
        }
        self.open.push((section, Vec::new()));
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        let Some((section, bytes)) = self.open.pop() else {
            return Ok(());
        };
        if self.form == Form::Json {
            self.first = false;
            return self.out.write_all(b"}");
        }
        let mut whole = Vec::new();
        match self.open.last_mut() {
            Some((_, open)) => protobuf::put_bytes(section.number, &bytes, open),
            None => {
                protobuf::put_length(section.number, bytes.len(), &mut whole);
                self.out.write_all(&whole)?;
                self.out.write_all(&bytes)?;
            }
        }
        Ok(())
    }

    fn open_components(&mut self) -> io::Result<()> {
        self.open(&protobuf::V3_COMPONENTS)
    }

    fn close_components(&mut self) -> io::Result<()> {
        self.close()
    }

    /// An entry of what is open.
    fn entry(&mut self, name: &str, value: &Value) -> io::Result<()> {
        match self.form {
            Form::Json => {
                self.key(name)?;
                serde_json::to_writer(&mut *self.out, value)?;
            }
            Form::Protobuf => {
                if let Some((section, open)) = self.open.last_mut() {
                    protobuf::encode_entry(section.of, name, value, open);
                }
            }
        }
        Ok(())
    }

    /// The same, of a value that is JSON already.
    fn entry_json(&mut self, name: &str, json: &str) -> io::Result<()> {
        match self.form {
            Form::Json => {
                self.key(name)?;
                self.out.write_all(json.as_bytes())
            }
            Form::Protobuf => self.entry(name, &serde_json::from_str(json)?),
        }
    }

    fn finish(self) -> io::Result<()> {
        if self.form == Form::Json {
            self.out.write_all(b"}")?;
        }
        Ok(())
    }
}
