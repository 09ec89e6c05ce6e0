//! How a password is proved to a server without sending it.
//!
//! - `mysql_native_password`: SHA-1, every server.
//! - `caching_sha2_password`: SHA-256, the default of MySQL 8. The server remembers logins in a cache that is empty
//!   after its start; then it wants the password itself, encrypted by TLS or by its RSA key. See [`super::rsa`].
//! - `client_ed25519`: MariaDB's `ed25519` plugin. The key is the SHA-512 of the password, used as the *expanded*
//!   private key of RFC 8032.

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

/// The plugins that can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plugin {
    Native,
    CachingSha2,
    Ed25519,
}

impl Plugin {
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "mysql_native_password" => Some(Self::Native),
            "caching_sha2_password" => Some(Self::CachingSha2),
            "client_ed25519" => Some(Self::Ed25519),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
            Self::Ed25519 => "client_ed25519",
        }
    }

    /// How many random bytes the server sends for it. Most put a NUL behind them, but `client_ed25519` does not, and
    /// its last random byte may be 0 as well: so they are counted, not searched for an end.
    pub fn nonce_length(self) -> usize {
        match self {
            Self::Native | Self::CachingSha2 => 20,
            Self::Ed25519 => 32,
        }
    }

    /// The proof for these random bytes. An empty password is proved by nothing at all, except with ed25519.
    pub fn response(self, password: &str, nonce: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519 => ed25519(password, nonce),
            _ if password.is_empty() => Vec::new(),
            Self::Native => native(password, nonce),
            Self::CachingSha2 => caching_sha2(password, nonce),
        }
    }
}

/// SHA1(password) ⊕ SHA1(nonce ‖ SHA1(SHA1(password)))
fn native(password: &str, nonce: &[u8]) -> Vec<u8> {
    let once = Sha1::digest(password);
    let mix = Sha1::new().chain_update(nonce).chain_update(Sha1::digest(once)).finalize();
    xor(&once, &mix)
}

/// SHA256(password) ⊕ SHA256(SHA256(SHA256(password)) ‖ nonce)
fn caching_sha2(password: &str, nonce: &[u8]) -> Vec<u8> {
    let once = Sha256::digest(password);
    let mix = Sha256::new().chain_update(Sha256::digest(once)).chain_update(nonce).finalize();
    xor(&once, &mix)
}

fn ed25519(password: &str, nonce: &[u8]) -> Vec<u8> {
    let key = ExpandedSecretKey::from_bytes(&Sha512::digest(password).into());
    let public = VerifyingKey::from(&key);
    raw_sign::<Sha512>(&key, nonce, &public).to_vec()
}

pub(super) fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(a, b)| a ^ b).collect()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Verifier;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }

    /// The server's side: it keeps only the double hash, and undoes the mixing.
    #[test]
    fn a_server_that_knows_the_double_hash_accepts_the_proof() {
        let nonce: Vec<u8> = (1..=20).collect();
        for password in ["s3cret", "ü", "a longer password, of more than 64 bytes in all, for both hashes"] {
            let proof = native(password, &nonce);
            let stored = Sha1::digest(Sha1::digest(password));
            let mix = Sha1::new().chain_update(&nonce).chain_update(stored).finalize();
            assert_eq!(Sha1::digest(xor(&proof, &mix)), stored);

            let proof = caching_sha2(password, &nonce);
            let stored = Sha256::digest(Sha256::digest(password));
            let mix = Sha256::new().chain_update(stored).chain_update(&nonce).finalize();
            assert_eq!(Sha256::digest(xor(&proof, &mix)), stored);
        }
    }

    #[test]
    fn an_empty_password_is_proved_by_nothing() {
        assert_eq!(Plugin::Native.response("", &[1; 20]), b"");
        assert_eq!(Plugin::CachingSha2.response("", &[1; 20]), b"");
        assert_eq!(Plugin::Ed25519.response("", &[1; 32]).len(), 64);
    }

    /// The public key is what MariaDB stores: `ed25519_password('secret')` of its documentation.
    #[test]
    fn ed25519_keys_are_those_that_mariadb_stores() {
        let key = ExpandedSecretKey::from_bytes(&Sha512::digest("secret").into());
        let public = VerifyingKey::from(&key);
        // ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY is this in base64.
        assert_eq!(
            hex(public.as_bytes()),
            "648814444520e4f56043a2ec9215e63be7992d2d270bc6dee873e36164786096"
        );
        let signature = ed25519("secret", b"nonce").try_into().unwrap();
        let signature = ed25519_dalek::Signature::from_bytes(&signature);
        public.verify(b"nonce", &signature).unwrap();
    }
}
