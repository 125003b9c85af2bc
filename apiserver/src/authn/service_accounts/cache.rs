//! Tokens whose signature was verified: that never changes, unlike everything else about them.

use std::collections::HashMap;

use parking_lot::Mutex;
use ring::digest;

use super::Claims;

/// Tokens remembered; when there are more, the memory starts afresh.
const CAPACITY: usize = 4096;

type Digest = [u8; digest::SHA256_OUTPUT_LEN];

/// The claims of verified tokens, by the tokens' digest so that no token lies in memory.
#[derive(Default)]
pub struct Verified(Mutex<HashMap<Digest, Claims>>);

impl Verified {
    pub fn get(&self, token: &str) -> Option<Claims> {
        self.0.lock().get(&digest_of(token)).cloned()
    }

    pub fn insert(&self, token: &str, claims: Claims) {
        let mut claims_of = self.0.lock();
        if claims_of.len() >= CAPACITY {
            claims_of.clear();
        }
        claims_of.insert(digest_of(token), claims);
    }
}

fn digest_of(token: &str) -> Digest {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().unwrap_or_default()
}
