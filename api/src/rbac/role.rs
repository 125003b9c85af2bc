//! Role.

use k8s_openapi::api::rbac::v1::Role;

use super::validation;
use crate::{field::ErrorList, strategy::Behaviour, zero::list};

impl Behaviour for Role {
    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        validation::rules(list(&self.rules), true, &mut errors);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        crate::testing::run::<Role>(include_str!("../../testdata/role.yaml"));
    }
}
