//! Proofs of who sent a body: HMACs over its raw bytes, and GitLab's token.
//!
//! Every comparison takes as long whatever it finds, and every secret is tried. A missing proof is none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::secret::Secret;
use super::{Fault, Refused};
use crate::builds::happening::Forge;

/// How far the time of a signed delivery may be from ours, seconds.
pub const TOLERANCE_S: i64 = 300;
/// Signatures of one delivery that are tried, at most: a forge sends two while its secret changes.
const SIGNATURES_MAX: usize = 8;

/// What is to prove who sent a delivery.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// HMAC-SHA-256 over the body.
    Body([u8; 32]),
    /// Standard Webhooks: HMAC-SHA-256 over the id, the time and the body.
    Standard {
        /// `webhook-id`.
        id: Box<str>,
        /// `webhook-timestamp`, Unix seconds.
        at_s: i64,
        /// Each `v1` of `webhook-signature`.
        signatures: Vec<[u8; 32]>,
        /// GitLab's token, which it sends beside.
        token: Option<[u8; 32]>,
    },
    /// The secret itself, as GitLab sends it; its SHA-256.
    Token([u8; 32]),
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proof(..)")
    }
}

/// The SHA-256 of a text.
pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl Proof {
    /// Takes it from the headers.
    pub(super) fn read<'h>(forge: Forge, get: &impl Fn(&str) -> Option<&'h str>) -> Result<Self, Refused> {
        match forge {
            Forge::Github => match get("x-hub-signature-256") {
                Some(text) => hub(text),
                None => Err(unsigned("`X-Hub-Signature-256`", "the hook has no secret: enter one at the forge")),
            },
            Forge::Gitea => {
                match (get("x-gitea-signature").or_else(|| get("x-forgejo-signature")), get("x-hub-signature-256")) {
                    // Without a secret Gitea sends it empty.
                    (Some(text), _) if !text.is_empty() => hex(text).map(Self::Body),
                    (_, Some(text)) => hub(text),
                    _ => Err(unsigned("`X-Gitea-Signature`", "the hook has no secret: enter one at the forge")),
                }
            }
            Forge::Gitlab => gitlab(get),
        }
    }

    /// Checks the proof against every secret.
    pub(super) fn verify(&self, secrets: &[Secret], body: &[u8], now_s: i64) -> Result<(), Refused> {
        match self {
            Self::Body(signature) => {
                let right = any(secrets, |secret| mac(secret.as_bytes(), &[body]).ct_eq(signature));
                if right { Ok(()) } else { Err(wrong(body)) }
            }
            Self::Token(token) => verify_token(secrets, token),
            Self::Standard { id, at_s, signatures, token } => {
                let keys: Vec<&[u8]> = secrets.iter().filter_map(Secret::signing_key).collect();
                if keys.is_empty() {
                    return match token {
                        Some(token) => verify_token(secrets, token),
                        None => Err(Refused::new(
                            Fault::Signature,
                            "the delivery is signed by a signing token, and the broker has none for this forge: give \
                             it the one that begins with whsec_, or use the hook's secret token",
                        )),
                    };
                }
                let time = at_s.to_string();
                let signed: [&[u8]; 5] = [id.as_bytes(), b".", time.as_bytes(), b".", body];
                let right = any(&keys, |key| {
                    let mac = mac(key, &signed);
                    signatures.iter().fold(Choice::from(0), |found, signature| found | mac.ct_eq(signature))
                });
                if !right {
                    return Err(wrong(body));
                }
                // Only of what is signed the time is believed.
                if now_s.abs_diff(*at_s) > TOLERANCE_S.unsigned_abs() {
                    return Err(Refused::new(
                        Fault::Signature,
                        format!(
                            "the delivery was signed {} s {} now, more than {TOLERANCE_S}: it is a replay, or one of \
                             the two clocks is wrong",
                            now_s.abs_diff(*at_s),
                            if *at_s < now_s { "before" } else { "after" }
                        ),
                    ));
                }
                Ok(())
            }
        }
    }
}

fn verify_token(secrets: &[Secret], token: &[u8; 32]) -> Result<(), Refused> {
    // Hashes are compared, so that the length of the secret does not show.
    if any(secrets, |secret| digest(secret.as_bytes()).ct_eq(token)) {
        return Ok(());
    }
    Err(Refused::new(Fault::Signature, "`X-Gitlab-Token` is not the secret that the broker has for this forge"))
}

/// Whether any fits; all are tried.
fn any<T>(all: &[T], fits: impl Fn(&T) -> Choice) -> bool {
    all.iter().fold(Choice::from(0), |found, one| found | fits(one)).into()
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// `sha256=` and hexadecimal digits.
fn hub(text: &str) -> Result<Proof, Refused> {
    let digits = text.trim().strip_prefix("sha256=");
    let digits =
        digits.ok_or_else(|| Refused::new(Fault::Unsigned, "`X-Hub-Signature-256` does not begin with `sha256=`"))?;
    hex(digits).map(Proof::Body)
}

fn gitlab<'h>(get: &impl Fn(&str) -> Option<&'h str>) -> Result<Proof, Refused> {
    let token = get("x-gitlab-token").filter(|token| !token.is_empty()).map(|token| digest(token.as_bytes()));
    let Some(list) = get("webhook-signature") else {
        return token.map(Proof::Token).ok_or_else(|| {
            unsigned("`X-Gitlab-Token` or `webhook-signature`", "the hook has no secret: enter one at the forge")
        });
    };
    let id = get("webhook-id").ok_or_else(|| unsigned("`webhook-id`", "it is part of what is signed"))?;
    let time =
        get("webhook-timestamp").ok_or_else(|| unsigned("`webhook-timestamp`", "it is part of what is signed"))?;
    let at_s = time.trim().parse().map_err(|_| Refused::new(Fault::Unsigned, "`webhook-timestamp` is no Unix time"))?;
    let v1 = list.split_whitespace().filter_map(|one| one.strip_prefix("v1,"));
    let decoded = v1.take(SIGNATURES_MAX).filter_map(|text| STANDARD.decode(text).ok()?.try_into().ok());
    let signatures: Vec<[u8; 32]> = decoded.collect();
    if signatures.is_empty() {
        return Err(Refused::new(Fault::Unsigned, "`webhook-signature` has no signature of version `v1`"));
    }
    Ok(Proof::Standard { id: id.into(), at_s, signatures, token })
}

fn hex(text: &str) -> Result<[u8; 32], Refused> {
    let refuse = || Refused::new(Fault::Unsigned, "the signature is not 64 hexadecimal digits");
    let text = text.trim();
    if text.len() != 64 || !text.is_ascii() {
        return Err(refuse());
    }
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).map_err(|_| refuse())?;
    }
    Ok(bytes)
}

fn unsigned(header: &str, why: &str) -> Refused {
    Refused::new(Fault::Unsigned, format!("the header {header} is missing: {why}"))
}

/// A signature that is not that of the body. Whoever set the hook up reads this.
fn wrong(body: &[u8]) -> Refused {
    let message = if serde_json::from_slice::<IgnoredAny>(body).is_ok() {
        "the signature is not that of the body, which reads well: either the secret at the forge is another one than \
         the broker's, or the body was altered on the way, by a proxy or tunnel that writes JSON anew"
    } else {
        "the signature is not that of the body: the secret at the forge is another one than the broker's, or the body \
         was cut or altered on the way"
    };
    Refused::new(Fault::Signature, message)
}
