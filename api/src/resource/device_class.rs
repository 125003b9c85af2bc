//! DeviceClass.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::DeviceClass;
use serde_json::Value;

use super::validation;
use crate::{
    core::pod::validation::resources::is_extended,
    expression::Expression,
    field::{ErrorList, Path},
    shape,
    strategy::{Behaviour, Column, Shape},
    table::{AGE, NAME, age, name},
    zero::list,
};

impl Behaviour for DeviceClass {
    const SHAPE: Shape<Self> = shape!(generation: spec);

    fn validate(&self) -> ErrorList {
        const MAX_CONFIGS: usize = 32;
        let mut errors = ErrorList::new();
        let (spec, path) = (&self.spec, Path::new("spec"));
        let selectors = list(&spec.selectors);
        validation::selectors(selectors, &path.child("selectors"), &mut errors);
        let (configs, config_path) = (list(&spec.config), path.child("config"));
        if validation::is_short(configs, MAX_CONFIGS, &config_path, &mut errors) {
            for (index, config) in configs.iter().enumerate() {
                let path = config_path.index(index);
                validation::configuration(config.opaque.as_ref(), &path, &mut errors);
            }
        }
        let name = spec.extended_resource_name.as_ref();
        if let Some(name) = name.filter(|name| !is_extended(name)) {
            let path = path.child("extendedResourceName");
            errors.push(path.invalid(name.as_str(), "must be a valid extended resource name"));
        }
        errors
    }

    fn expressions(&self) -> Vec<Expression<'_>> {
        let path = Path::new("spec.selectors");
        validation::expressions(list(&self.spec.selectors), &path)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, AGE];
        COLUMNS
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![name(&self.metadata), age(&self.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        crate::testing::run::<DeviceClass>(include_str!("../../testdata/device_class.yaml"));
    }
}
