//! Reads `schema/*.txt`, whose form `schema/README.md` describes.

use std::{collections::BTreeMap, error::Error, fmt::Write, fs, path::Path};

pub type Types = BTreeMap<String, Type>;

pub struct Type {
    /// For example `io.k8s.api.core.v1.Container`.
    pub openapi: String,
    pub is_atomic: bool,
    pub union: Option<Union>,
    pub fields: Vec<Field>,
}

/// Fields of which one is chosen.
pub struct Union {
    /// The field that says which; empty when there is none.
    pub discriminator: String,
    pub fields: Vec<String>,
}

pub struct Field {
    pub name: String,
    pub number: u32,
    /// `One`, `List`, `Map` or `MapOfLists`.
    pub shape: &'static str,
    /// A scalar, or the name of a type as the key of [`Types`] has it.
    pub of: String,
    pub flags: Vec<String>,
}

const SCALARS: [&str; 17] = [
    "string",
    "int32",
    "int64",
    "bool",
    "double",
    "bytes",
    "Quantity",
    "Time",
    "MicroTime",
    "Duration",
    "IntOrString",
    "RawExtension",
    "FieldsV1",
    "JSON",
    "JSONSchemaPropsOrArray",
    "JSONSchemaPropsOrBool",
    "JSONSchemaPropsOrStringArray",
];

/// All types by `core.v1.Container`.
pub fn read(folder: &Path) -> Result<Types, Box<dyn Error>> {
    let mut types = Types::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let group = path
            .file_stem()
            .ok_or("no name")?
            .to_string_lossy()
            .into_owned();
        read_file(&group, &fs::read_to_string(&path)?, &mut types)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(types)
}

fn read_file(group: &str, text: &str, types: &mut Types) -> Result<(), String> {
    let (mut package, mut current) = (String::new(), None);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // A field is indented; one may be named `type`.
        let is_field = line.starts_with(' ');
        match words[..] {
            [] => {}
            ["package", name] if !is_field => package = name.to_owned(),
            ["type", name, ref flags @ ..] if !is_field => {
                let key = format!("{group}.{name}");
                let made = Type {
                    openapi: format!("{package}.{name}"),
                    is_atomic: flags.contains(&"atomic"),
                    union: flags.iter().find_map(|flag| read_union(flag)),
                    fields: Vec::new(),
                };
                types.insert(key.clone(), made);
                current = Some(key);
            }
            [name, number, of, ref flags @ ..] => {
                let field = read_field(group, name, number, of, flags)
                    .ok_or_else(|| format!("no field: {line}"))?;
                let key = current.as_ref().ok_or("a field before its type")?;
                types.get_mut(key).ok_or("no type")?.fields.push(field);
            }
            _ => return Err(format!("not understood: {line}")),
        }
    }
    Ok(())
}

/// `union=type:localhostProfile`
fn read_union(flag: &str) -> Option<Union> {
    let (discriminator, fields) = flag.strip_prefix("union=")?.split_once(':')?;
    Some(Union {
        discriminator: discriminator.to_owned(),
        fields: fields.split(',').map(str::to_owned).collect(),
    })
}

fn read_field(group: &str, name: &str, number: &str, of: &str, flags: &[&str]) -> Option<Field> {
    let (shape, of) = if let Some(of) = of.strip_prefix("{}[]") {
        ("MapOfLists", of)
    } else if let Some(of) = of.strip_prefix("{}") {
        ("Map", of)
    } else if let Some(of) = of.strip_prefix("[]") {
        ("List", of)
    } else {
        ("One", of)
    };
    let of = if SCALARS.contains(&of) || of.contains('.') {
        of.to_owned()
    } else {
        format!("{group}.{of}")
    };
    Some(Field {
        name: name.to_owned(),
        number: number.parse().ok()?,
        shape,
        of,
        flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
    })
}

/// The tables as statics of the types in `src/schema.rs`.
pub fn to_rust(types: &Types) -> Result<String, Box<dyn Error>> {
    let index: BTreeMap<&str, usize> = types.keys().map(String::as_str).zip(0..).collect();
    let mut rust = format!("pub static TYPES: [Type; {}] = [\n", types.len());
    for (name, of) in types {
        let mut fields: Vec<&Field> = of.fields.iter().collect();
        fields.sort_by(|left, right| left.name.cmp(&right.name));
        writeln!(
            rust,
            "Type {{ name: {name:?}, openapi: {:?}, is_atomic: {}, fields: &[",
            of.openapi, of.is_atomic
        )?;
        for field in fields {
            field_to_rust(&mut rust, field, &index).map_err(|e| format!("{name}: {e}"))?;
        }
        rust.push_str("] },\n");
    }
    rust.push_str("];\n");
    Ok(rust)
}

fn field_to_rust(
    rust: &mut String,
    field: &Field,
    index: &BTreeMap<&str, usize>,
) -> Result<(), String> {
    let of = match index.get(field.of.as_str()) {
        Some(at) => format!("Of::Type({at})"),
        None if SCALARS.contains(&field.of.as_str()) => {
            let mut name = field.of.replace("JSON", "Json");
            name[..1].make_ascii_uppercase();
            format!("Of::{name}")
        }
        None => return Err(format!("{} is of no known type {}", field.name, field.of)),
    };
    let (mut presence, mut merge, mut is_inline) =
        ("Omitted", "Merge::Unspecified".to_owned(), false);
    let (mut strategy, mut merge_key) = ("PatchStrategy::NONE".to_owned(), "None".to_owned());
    let mut default = "None".to_owned();
    for flag in &field.flags {
        match flag.split_once('=').unwrap_or((flag, "")) {
            ("required", _) => presence = "Always",
            ("pointer", _) => presence = "Pointer",
            ("value", _) => presence = "Value",
            ("inline", _) => is_inline = true,
            ("default", json) => default = format!("Some({json:?})"),
            // Of OpenAPI alone.
            ("mandatory", _) => {}
            ("atomic", _) => merge = "Merge::Atomic".to_owned(),
            ("granular", _) => merge = "Merge::Granular".to_owned(),
            ("set", _) => merge = "Merge::Set".to_owned(),
            ("map", keys) => {
                let keys: Vec<&str> = keys.split(',').collect();
                merge = format!("Merge::Map(&{keys:?})");
            }
            ("patch", patch) => {
                let (names, key) = patch.split_once(':').unwrap_or((patch, ""));
                let has = |name| names.split('+').any(|known| known == name);
                strategy = format!(
                    "PatchStrategy {{ merge: {}, retain_keys: {}, replace: {} }}",
                    has("merge"),
                    has("retainKeys"),
                    has("replace")
                );
                if !key.is_empty() {
                    merge_key = format!("Some({key:?})");
                }
            }
            _ => return Err(format!("{}: unknown flag {flag}", field.name)),
        }
    }
    writeln!(
        rust,
        "Field {{ name: {:?}, number: {}, shape: Shape::{}, of: {of}, \
         presence: Presence::{presence}, merge: {merge}, strategy: {strategy}, \
         merge_key: {merge_key}, is_inline: {is_inline}, default: {default} }},",
        field.name, field.number, field.shape
    )
    .map_err(|error| error.to_string())
}
