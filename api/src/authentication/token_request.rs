//! TokenRequest: the body of the `token` subresource of a ServiceAccount.

use k8s_openapi::api::authentication::v1::TokenRequest;

use crate::{
    field::{ErrorList, Path},
    strategy::Behaviour,
};

/// In seconds, when the client asks for none.
const DEFAULT_EXPIRATION: i64 = 60 * 60;
const MIN_EXPIRATION: i64 = 10 * 60;
const MAX_EXPIRATION: i64 = 1 << 32;

impl Behaviour for TokenRequest {
    fn default_fields(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.expiration_seconds.get_or_insert(DEFAULT_EXPIRATION);
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec").child("expirationSeconds");
        let spec = self.spec.as_ref();
        let seconds = spec
            .and_then(|spec| spec.expiration_seconds)
            .unwrap_or_default();
        if seconds < MIN_EXPIRATION {
            errors.push(path.invalid(seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > MAX_EXPIRATION {
            errors.push(path.invalid(
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            ));
        }
        errors
    }
}
