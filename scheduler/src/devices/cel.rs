//! The CEL expressions that select devices.
//!
//! Enter at [`Selectors::matches`]. An expression sees one variable, `device`, and beside CEL's
//! own functions those that upstream adds for quantities and semantic versions, and `cel.bind`.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use cel::{
    Context, ExecutionError, Value,
    common::{
        traits::{Container, Indexer, Iterable, Iterator as Elements, Sizer},
        types::{CelBool, CelInt, CelMap, CelMapKey, CelString, MAP_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};
use coracle_api::quantity::Amount;
use coracle_cel::{Compiled, Quantity, Scope, Semver};
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};
use semver::Version;

/// More expressions than this are not remembered.
const REMEMBERED: usize = 512;

type Evaluated<T> = Result<T, ExecutionError>;
type Boxed = Box<dyn Val>;

/// Expressions compiled once.
pub(crate) struct Selectors {
    scope: Scope,
    known: Mutex<HashMap<String, Known>>,
}

type Known = Arc<Result<Compiled, String>>;

impl Default for Selectors {
    fn default() -> Self {
        Selectors {
            scope: Scope::device(),
            known: Mutex::default(),
        }
    }
}

impl Selectors {
    /// Whether the expression selects the device.
    ///
    /// # Errors
    /// It is no expression, or cannot be evaluated for this device.
    pub fn matches(&self, expression: &str, device: &DeviceValue) -> Result<bool, String> {
        let compiled = self.compiled(expression);
        let compiled = match &*compiled {
            Ok(compiled) => compiled,
            Err(why) => return Err(format!("CEL compile error: {why}")),
        };
        let mut context = Context::with_env(self.scope.language().clone());
        context.add_variable_as_val("device", Box::new(device.clone()));
        match compiled.program.execute(&context) {
            Ok(Value::Bool(matches)) => Ok(matches),
            Ok(other) => Err(format!(
                "CEL runtime error: CEL result of type {} could not be converted to bool",
                other.type_of()
            )),
            Err(ExecutionError::NoSuchKey(key)) => {
                Err(format!("CEL runtime error: no such key: {key}"))
            }
            Err(error) => Err(format!("CEL runtime error: {error}")),
        }
    }

    fn compiled(&self, expression: &str) -> Known {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = known.get(expression) {
            return compiled.clone();
        }
        let compiled = coracle_cel::compile(expression, &self.scope);
        let compiled = Arc::new(compiled.map_err(|error| error.to_string()));
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(expression.to_owned(), compiled.clone());
        compiled
    }
}

/// A device as expressions see it.
#[derive(Clone, Debug)]
pub(crate) struct DeviceValue(Arc<CelMap<'static>>);

impl DeviceValue {
    /// # Errors
    /// An attribute has no value that expressions know.
    pub fn new(driver: &str, device: &Device) -> Result<Self, String> {
        let mut attributes = Domains::default();
        for (name, attribute) in device.attributes.iter().flatten() {
            let value = attribute_value(attribute)
                .map_err(|why| format!("CEL runtime error: attribute {name}: {why}"))?;
            attributes.add(driver, name, value);
        }
        let mut capacity = Domains::default();
        for (name, amount) in device.capacity.iter().flatten() {
            let amount = Quantity(Amount::from(&amount.value));
            capacity.add(driver, name, Box::new(amount));
        }
        let multiple = device.allow_multiple_allocations == Some(true);
        let fields: [(&'static str, Boxed); 4] = [
            ("driver", Box::new(CelString::from(driver.to_owned()))),
            (
                "allowMultipleAllocations",
                Box::new(CelBool::from(multiple)),
            ),
            ("attributes", Box::new(DomainsValue::from(attributes))),
            ("capacity", Box::new(DomainsValue::from(capacity))),
        ];
        let fields = fields.map(|(name, value)| (CelMapKey::from(name), value));
        Ok(DeviceValue(Arc::new(CelMap::from(HashMap::from(fields)))))
    }
}

fn attribute_value(attribute: &DeviceAttribute) -> Result<Boxed, String> {
    if let Some(number) = attribute.int {
        return Ok(Box::new(CelInt::from(number)));
    }
    if let Some(truth) = attribute.bool {
        return Ok(Box::new(CelBool::from(truth)));
    }
    if let Some(text) = &attribute.string {
        return Ok(Box::new(CelString::from(text.clone())));
    }
    let Some(version) = &attribute.version else {
        return Err("unsupported attribute value".to_owned());
    };
    match Version::parse(version) {
        Ok(version) => Ok(Box::new(Semver(version))),
        Err(error) => Err(format!("parse semantic version: {error}")),
    }
}

/// Values by domain and name; a name without a domain is of the driver's.
#[derive(Default)]
struct Domains(BTreeMap<String, HashMap<CelMapKey<'static>, Boxed>>);

impl Domains {
    fn add(&mut self, driver: &str, name: &str, value: Boxed) {
        let (domain, name) = name.split_once('/').unwrap_or((driver, name));
        let domain = self.0.entry(domain.to_owned()).or_default();
        domain.insert(CelMapKey::from(name.to_owned()), value);
    }
}

/// [`Domains`] as a value: a map in which a domain that is not there is an empty one.
#[derive(Clone, Debug)]
struct DomainsValue(Arc<(CelMap<'static>, CelMap<'static>)>);

impl From<Domains> for DomainsValue {
    fn from(domains: Domains) -> Self {
        let domains = domains.0.into_iter().map(|(domain, values)| {
            let values: Boxed = Box::new(CelMap::from(values));
            (CelMapKey::from(domain), values)
        });
        let domains: HashMap<_, _> = domains.collect();
        DomainsValue(Arc::new((CelMap::from(domains), CelMap::default())))
    }
}

impl Indexer for DomainsValue {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Evaluated<CowVal<'b, 'v>>
    where
        Self: 'v,
    {
        match self.0.0.get(key) {
            Err(ExecutionError::NoSuchKey(_)) => Ok(CowVal::Borrowed(&self.0.1)),
            found => found,
        }
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Evaluated<Box<dyn Val + 'v>>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Indexer for DeviceValue {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Evaluated<CowVal<'b, 'v>>
    where
        Self: 'v,
    {
        self.0.get(key)
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Evaluated<Box<dyn Val + 'v>>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Container for DomainsValue {
    fn contains(&self, key: &dyn Val) -> Evaluated<bool> {
        self.0.0.contains(key)
    }
}

impl Sizer for DomainsValue {
    fn size(&self) -> CelInt {
        self.0.0.size()
    }
}

impl Iterable for DomainsValue {
    fn iter<'b, 'v>(&'b self) -> Box<dyn Elements<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Iterable::iter(&self.0.0)
    }
}

impl Val for DomainsValue {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for DomainsValue {}

impl Val for DeviceValue {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for DeviceValue {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn devices_are_selected() {
        let device: Device = serde_json::from_value(json!({
            "name": "d", "allowMultipleAllocations": true,
            "attributes": {
                "model": { "string": "A" }, "cores": { "int": 4 }, "fast": { "bool": true },
                "other.com/version": { "version": "1.10.0-beta" },
            },
            "capacity": { "memory": { "value": "16Gi" } },
        }))
        .unwrap();
        let device = DeviceValue::new("d.com", &device).unwrap();
        let selectors = Selectors::default();
        for (expression, expected) in [
            ("device.driver == 'd.com'", Ok(true)),
            ("device.driver == 'e.com'", Ok(false)),
            ("device.allowMultipleAllocations", Ok(true)),
            ("device.attributes['d.com'].model == 'A'", Ok(true)),
            ("device.attributes['d.com'].model == 'B'", Ok(false)),
            (
                "device.attributes['d.com'].cores > 3 && device.attributes['d.com'].fast",
                Ok(true),
            ),
            (
                "'d.com' in device.attributes && !('x.com' in device.attributes)",
                Ok(true),
            ),
            ("'model' in device.attributes['x.com']", Ok(false)),
            ("has(device.attributes['x.com'].model)", Ok(false)),
            ("has(device.attributes['d.com'].model)", Ok(true)),
            (
                "device.attributes['x.com'].?model.orValue('z') == 'z'",
                Ok(true),
            ),
            (
                "device.attributes['d.com'].nope",
                Err("CEL runtime error: no such key: nope"),
            ),
            (
                "device.attributes['x.com'].nope == 1",
                Err("CEL runtime error: no such key: nope"),
            ),
            (
                "device.attributes.exists(domain, domain == 'other.com')",
                Ok(true),
            ),
            ("size(device.attributes) == 2", Ok(true)),
            (
                "device.capacity['d.com'].memory.isGreaterThan(quantity('8Gi'))",
                Ok(true),
            ),
            (
                "device.capacity['d.com'].memory.compareTo(quantity('16Gi')) == 0",
                Ok(true),
            ),
            (
                "device.capacity['d.com'].memory == quantity('16384Mi')",
                Ok(true),
            ),
            (
                "device.capacity['d.com'].memory.sub(quantity('1Gi')).isLessThan(quantity('16Gi'))",
                Ok(true),
            ),
            (
                "device.capacity['d.com'].memory.asInteger() == 17179869184",
                Ok(true),
            ),
            ("isQuantity('20x') || isSemver('1.0')", Ok(false)),
            (
                "device.attributes['other.com'].version.isGreaterThan(semver('1.9.9'))",
                Ok(true),
            ),
            (
                "device.attributes['other.com'].version.isLessThan(semver('v1.10', true))",
                Ok(true),
            ),
            (
                "device.attributes['other.com'].version.minor() == 10",
                Ok(true),
            ),
            ("semver('01.01.01', true) == semver('1.1.1')", Ok(true)),
            (
                "cel.bind(d, device.attributes['d.com'], d.fast && d.cores == 4)",
                Ok(true),
            ),
            (
                "device.attributes['d.com'].model.lowerAscii() == 'a'",
                Ok(true),
            ),
            (
                "'text'",
                Err("CEL runtime error: CEL result of type string could not be converted to bool"),
            ),
        ] {
            let found = selectors.matches(expression, &device);
            assert_eq!(found, expected.map_err(str::to_owned), "{expression}");
        }
        let broken = selectors.matches("device.", &device).unwrap_err();
        assert!(
            broken.starts_with("CEL compile error: compilation failed: "),
            "{broken}"
        );
    }
}
