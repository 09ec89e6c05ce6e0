//! The password for `caching_sha2_password`'s full authentication without TLS: RSA-OAEP (RFC 8017, 7.1) with SHA-1,
//! for the key that the server sends.
//!
//! Only the public half of RSA is here: there is no private key whose timing could leak.

use num_bigint::BigUint;
use rand::RngCore;
use sha1::{Digest, Sha1};

use super::auth::xor;

const HASH: usize = 20;
/// MySQL makes keys of 2,048 bits. More than this costs time that a hostile server should not get.
const MAX_KEY: usize = 1024;

/// A public key.
pub(super) struct PublicKey {
    modulus: BigUint,
    exponent: BigUint,
    /// Bytes of the modulus.
    size: usize,
}

impl PublicKey {
    /// Reads a `PUBLIC KEY` in PEM (RFC 7468) that holds a `SubjectPublicKeyInfo` (RFC 5280) of RSA.
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(pem).ok()?;
        let body = text.split_once("-----BEGIN PUBLIC KEY-----")?.1.split_once("-----END PUBLIC KEY-----")?.0;
        let der = base64(body)?;
        let (info, _) = element(&der, 0x30)?;
        let (_algorithm, rest) = element(info, 0x30)?;
        let (bits, _) = element(rest, 0x03)?;
        let (key, _) = element(bits.strip_prefix(&[0])?, 0x30)?;
        let (modulus, rest) = element(key, 0x02)?;
        let (exponent, _) = element(rest, 0x02)?;
        let modulus = BigUint::from_bytes_be(modulus);
        let size = usize::try_from(modulus.bits().div_ceil(8)).ok()?;
        let exponent = BigUint::from_bytes_be(exponent);
        let usable = size <= MAX_KEY && size > 2 * HASH + 2 && exponent.bits() <= 64;
        usable.then_some(Self { modulus, exponent, size })
    }

    /// `None` if the message is too long for the key.
    pub fn encrypt(&self, message: &[u8]) -> Option<Vec<u8>> {
        let padding = (self.size - 2 * HASH - 2).checked_sub(message.len())?;
        let mut data = Sha1::digest([]).to_vec();
        data.resize(HASH + padding, 0);
        data.push(1);
        data.extend_from_slice(message);
        let mut seed = [0; HASH];
        rand::rng().fill_bytes(&mut seed);
        let data = xor(&data, &mask(&seed, data.len()));
        let seed = xor(&seed, &mask(&data, HASH));
        let block = [&[0], seed.as_slice(), data.as_slice()].concat();
        let cipher = BigUint::from_bytes_be(&block).modpow(&self.exponent, &self.modulus).to_bytes_be();
        let mut out = vec![0; self.size - cipher.len()];
        out.extend_from_slice(&cipher);
        Some(out)
    }
}

/// MGF1 with SHA-1 (RFC 8017, B.2.1).
fn mask(seed: &[u8], length: usize) -> Vec<u8> {
    (0u32..)
        .flat_map(|counter| Sha1::new().chain_update(seed).chain_update(counter.to_be_bytes()).finalize())
        .take(length)
        .collect()
}

/// The content of the DER element with this tag at the front, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let length = bytes.iter().fold(0, |all, &byte| all << 8 | usize::from(byte));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ if byte.is_ascii_whitespace() => continue,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn openssl(args: &[&str]) -> Option<Vec<u8>> {
        let mut command = Command::new("openssl");
        let out = command.args(args).stderr(Stdio::null()).output().ok()?;
        out.status.success().then_some(out.stdout)
    }

    /// A new key in `path`, and its public half in PEM; `None` without openssl.
    pub fn generate(path: &Path) -> Option<(PathBuf, Vec<u8>)> {
        let name = path.to_str().unwrap();
        let size = "rsa_keygen_bits:2048";
        openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", size, "-out", name])?;
        let public = openssl(&["pkey", "-in", name, "-pubout"])?;
        Some((path.to_owned(), public))
    }

    pub fn decrypt(key: &Path, cipher: &[u8]) -> Vec<u8> {
        let file = key.with_extension("cipher");
        std::fs::write(&file, cipher).unwrap();
        let (key, file) = (key.to_str().unwrap(), file.to_str().unwrap());
        let (padding, hash) = ("rsa_padding_mode:oaep", "rsa_oaep_md:sha1");
        let options = ["-pkeyopt", padding, "-pkeyopt", hash];
        openssl(&[&["pkeyutl", "-decrypt", "-inkey", key, "-in", file], &options[..]].concat()).unwrap()
    }

    #[test]
    fn openssl_decrypts_what_was_encrypted() {
        let dir = tempfile::tempdir().unwrap();
        let Some((key, pem)) = generate(&dir.path().join("key")) else {
            println!("SKIPPED: openssl_decrypts_what_was_encrypted: no openssl on this machine");
            return;
        };
        let public = PublicKey::from_pem(&pem).unwrap();
        for message in ["", "s3cret\0", &"x".repeat(214)] {
            let cipher = public.encrypt(message.as_bytes()).unwrap();
            assert_eq!(decrypt(&key, &cipher), message.as_bytes());
        }
        assert!(public.encrypt(&[b'x'; 215]).is_none());
    }

    proptest! {
        #[test]
        fn no_key_of_a_server_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[A-Za-z0-9+/=]{0,200}") {
            let _ = element(&bytes, 0x30);
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----");
            if let Some(key) = PublicKey::from_pem(pem.as_bytes()) {
                let _ = key.encrypt(b"secret");
            }
            let _ = PublicKey::from_pem(&bytes);
        }
    }
}
