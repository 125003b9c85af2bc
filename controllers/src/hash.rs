//! The hash in the names and labels of what is made from a template.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// Upstream's alphabet for generated names: no vowels, nothing that looks alike.
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name part for a pod template: the same for the same template in every version of this
/// program, another for another `collision_count`.
///
/// The template is hashed in its JSON form, in which absent fields do not show and keys are in a
/// fixed order.
pub(crate) fn template_hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    let mut hash = Fnv32a::default();
    let bytes = serde_json::to_vec(template).expect("a template always serialises");
    hash.write(&bytes);
    if let Some(count) = collision_count {
        hash.write(&i64::from(count).to_le_bytes());
    }
    safe_encode(&hash.0.to_string())
}

/// Writes a string with letters that spell nothing, as upstream's `rand.SafeEncodeString`.
pub(crate) fn safe_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| char::from(SAFE[usize::from(byte) % SAFE.len()]))
        .collect()
}

/// Fowler, Noll and Vo's hash, variant 1a with 32 bits.
pub(crate) struct Fnv32a(pub u32);

impl Default for Fnv32a {
    fn default() -> Self {
        Fnv32a(0x811c_9dc5)
    }
}

impl Fnv32a {
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        let mut hash = Fnv32a::default();
        hash.write(b"foobar");
        assert_eq!(hash.0, 0xbf9c_f968);
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
    }

    #[test]
    fn a_collision_gives_another_name() {
        let template = PodTemplateSpec::default();
        let first = template_hash(&template, None);
        assert_eq!(first, template_hash(&template, None));
        assert_ne!(first, template_hash(&template, Some(1)));
        assert_ne!(
            template_hash(&template, Some(1)),
            template_hash(&template, Some(2))
        );
    }
}
