//! The key pair that a city proves its identity with.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use policy::PublicKey;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// A city's Ed25519 key pair (RFC 8032).
pub struct CityKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// Why a key file cannot be used, or a key not be made. Says nothing of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// Neither PEM nor DER.
    #[error("the key file is neither a PEM text with `-----BEGIN PRIVATE KEY-----` nor PKCS#8 bytes")]
    Form,
    /// The PEM text is damaged.
    #[error("the text between the PEM lines of the key file is not base64")]
    Base64,
    /// PKCS#8, but not an Ed25519 private key.
    #[error("the key file does not hold an Ed25519 private key in PKCS#8: {reason}")]
    Kind {
        /// What the parser said.
        reason: String,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness for a new key")]
    Randomness,
}

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// PKCS#8 version 1 around a 32-byte Ed25519 seed (RFC 8410, section 7): the form that every tool reads.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

impl CityKey {
    /// A new key, and the bytes of its key file: PKCS#8 in PEM. Whoever has them is the city; keep them readable by the node alone.
    ///
    /// Errors: [`KeyFileError::Randomness`].
    pub fn generate() -> Result<(Self, Vec<u8>), KeyFileError> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| KeyFileError::Randomness)?;
        Ok((Self::from_seed(&seed), key_file(&seed)))
    }

    /// The key made from a seed: for simulations and tests, where runs must repeat.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::of(Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed"))
    }

    /// Reads a key file: PEM or DER, PKCS#8 version 1 (OpenSSL) or 2.
    pub fn from_key_file(bytes: &[u8]) -> Result<Self, KeyFileError> {
        let der = match std::str::from_utf8(bytes).ok().and_then(|t| t.split_once(PEM_BEGIN)) {
            Some((_, rest)) => {
                let (body, _) = rest.split_once(PEM_END).ok_or(KeyFileError::Form)?;
                let body: String = body.split_whitespace().collect();
                STANDARD.decode(body).map_err(|_| KeyFileError::Base64)?
            }
            // A DER sequence begins so.
            None if bytes.first() == Some(&0x30) => bytes.to_vec(),
            None => return Err(KeyFileError::Form),
        };
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(Self::of).map_err(|e| KeyFileError::Kind { reason: e.to_string() })
    }

    fn of(pair: Ed25519KeyPair) -> Self {
        let public = PublicKey::from_bytes(pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"));
        Self { pair, public }
    }

    /// The public half: who the city is.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

impl fmt::Debug for CityKey {
    /// The public half only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CityKey({})", self.public)
    }
}

/// Was `message` signed with the private half of `key`?
#[must_use]
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.as_bytes()).verify(message, signature).is_ok()
}

fn key_file(seed: &[u8; 32]) -> Vec<u8> {
    let der = [PKCS8_PREFIX.as_slice(), seed].concat();
    format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(der)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_key_is_read_back_from_its_file() {
        let (key, file) = CityKey::generate().unwrap();
        let read = CityKey::from_key_file(&file).unwrap();
        assert_eq!(read.public(), key.public());
        assert!(verify(key.public(), b"hello", &read.sign(b"hello")));
        assert!(!verify(key.public(), b"hallo", &read.sign(b"hello")));
        assert_ne!(CityKey::generate().unwrap().0.public(), key.public());
    }

    /// RFC 8032, section 7.1, test 1.
    #[test]
    fn signatures_follow_rfc_8032() {
        let hex = |s: &str| (0..s.len() / 2).map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).unwrap()).collect::<Vec<_>>();
        let seed: [u8; 32] = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").try_into().unwrap();
        let key = CityKey::from_seed(&seed);
        assert_eq!(key.public().as_bytes().to_vec(), hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"));
        let want = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
        assert_eq!(key.sign(b"").to_vec(), hex(want));
    }

    #[test]
    fn unusable_key_files_are_refused_with_the_reason() {
        check(b"", "neither a PEM text");
        check(b"hello", "neither a PEM text");
        check(b"-----BEGIN PRIVATE KEY-----\nAAAA\n", "neither a PEM text");
        check(b"-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----", "not base64");
        check(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "does not hold an Ed25519 private key");
        check(&[0x30, 0x00], "does not hold an Ed25519 private key");

        #[track_caller]
        fn check(file: &[u8], want: &str) {
            let error = CityKey::from_key_file(file).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        let key = CityKey::from_seed(&[3; 32]);
        assert_eq!(format!("{key:?}"), format!("CityKey({})", key.public()));
    }

    proptest! {
        #[test]
        fn any_key_file_gives_an_answer_not_a_panic(bytes: Vec<u8>, pem in proptest::bool::ANY) {
            let file = if pem { format!("{PEM_BEGIN}\n{}\n{PEM_END}", STANDARD.encode(&bytes)).into_bytes() } else { bytes };
            let _ = CityKey::from_key_file(&file);
        }
    }
}
