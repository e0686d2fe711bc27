//! Who may open a session: SCRAM-SHA-256, a password, or trust.

use std::sync::Arc;

use datafusion_postgres::pgwire::api::auth::Password;
use datafusion_postgres::pgwire::api::auth::sasl::SCRAM_SHA_256_METHOD;
use datafusion_postgres::pgwire::api::auth::sasl::scram::{
    SCRAM_ITERATIONS, ScramServerAuth, ScramServerAuthWaitingForClientFinal, gen_salted_password, random_nonce,
};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::startup::{Authentication, PasswordMessageFamily};

use super::session::{fatal, user_error};

/// Who may log in.
#[derive(Clone)]
pub enum Auth {
    /// Everybody is who they say they are. For development on one machine.
    Trust,
    /// A password is asked for, in clear text as far as the protocol is concerned: use it inside TLS, or on the same machine.
    Password(Arc<PasswordCheck>),
    /// SCRAM-SHA-256: the client proves that it knows the password, and the server that it knows it too; the password itself does not travel.
    Scram(Arc<SecretLookup>),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Trust => "Trust",
            Self::Password(_) => "Password",
            Self::Scram(_) => "Scram",
        })
    }
}

impl Auth {
    /// Checks a user and a password that was given in full, for protocols that send it so. It may take its time: call it on a thread that may wait.
    ///
    /// Errors: [`LoginError`].
    pub fn check(&self, user: &str, password: &str) -> Result<String, LoginError> {
        match self {
            Self::Trust => Ok(user.to_owned()),
            Self::Password(check) => check(user, password),
            Self::Scram(lookup) => {
                let secret = lookup(user)?;
                // With a salt, so that the time it takes says nothing about how much of it was right.
                let salt = random_nonce();
                let digest = |text: &str| gen_salted_password(text, salt.as_bytes(), SCRAM_ITERATIONS);
                if digest(&secret.password) == digest(password) { Ok(secret.principal) } else { Err(LoginError::Refused) }
            }
        }
    }
}

/// Checks a user and a password and gives the principal. It may take its time: it runs on a thread of its own.
pub type PasswordCheck = dyn Fn(&str, &str) -> Result<String, LoginError> + Send + Sync;

/// Gives what a user has to know, and who that is. It may take its time: it runs on a thread of its own.
pub type SecretLookup = dyn Fn(&str) -> Result<Secret, LoginError> + Send + Sync;

/// What a user has to know to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Who logs in with it.
    pub principal: String,
    /// The password or token.
    pub password: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Wrong password, or no such user: nobody is told which.
    #[error("wrong user or password")]
    Refused,
    /// The check cannot be made now.
    #[error("the password cannot be checked: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// How far the exchange of a client has come.
#[derive(Debug, Default)]
pub(super) enum Exchange {
    /// Nothing was said yet.
    #[default]
    Begun,
    /// The client has to prove what it knows. No principal: there is no such user, and the exchange goes on to its end all the same.
    Challenged { principal: Option<String>, state: Box<ScramServerAuthWaitingForClientFinal> },
    /// It is over, well or not.
    Over,
}

/// What a message of the client leads to.
pub(super) enum Step {
    /// Say this and wait.
    Ask(Authentication),
    /// Say this; the principal is let in.
    LetIn(Authentication, String),
}

/// How the exchange is opened.
pub(super) fn scram_offer() -> Authentication {
    Authentication::SASL(vec![SCRAM_SHA_256_METHOD.to_owned()])
}

impl Exchange {
    /// The next step of SCRAM-SHA-256. After an error the exchange is over.
    pub(super) async fn step(&mut self, user: &str, message: PasswordMessageFamily, lookup: &Arc<SecretLookup>) -> PgWireResult<Step> {
        match std::mem::replace(self, Self::Over) {
            Self::Begun => {
                let first = message.into_sasl_initial_response()?;
                if first.auth_method != SCRAM_SHA_256_METHOD {
                    let unknown =
                        format!("authentication method \"{}\" is not offered (expected {SCRAM_SHA_256_METHOD})", first.auth_method);
                    return Err(user_error(fatal("28000", unknown)));
                }
                let (lookup, asked) = (lookup.clone(), user.to_owned());
                let salted = tokio::task::spawn_blocking(move || {
                    let (principal, password) = match lookup(&asked) {
                        Ok(secret) => (Some(secret.principal), secret.password),
                        // Nobody knows this one.
                        Err(LoginError::Refused) => (None, random_nonce()),
                        Err(unavailable @ LoginError::Unavailable { .. }) => return Err(unavailable),
                    };
                    let salt = random_nonce().into_bytes();
                    let salted = gen_salted_password(&password, &salt, SCRAM_ITERATIONS);
                    Ok((principal, Password::new(Some(salt), salted)))
                });
                let salted = salted.await.unwrap_or_else(|e| Err(LoginError::Unavailable { reason: e.to_string() }));
                let (principal, password) = salted.map_err(|e| refusal(user, &e))?;
                let said = first.data.as_deref().unwrap_or_default();
                let (challenge, state) = ScramServerAuth::new().on_client_first_message(said, password).map_err(malformed)?;
                *self = Self::Challenged { principal, state: Box::new(state) };
                Ok(Step::Ask(Authentication::SASLContinue(challenge.into())))
            }
            Self::Challenged { principal, state } => {
                let last = message.into_sasl_response()?;
                match (state.on_client_final_message(&last.data), principal) {
                    (Ok(proof), Some(principal)) => Ok(Step::LetIn(Authentication::SASLFinal(proof.into()), principal)),
                    (Ok(_), None) | (Err(PgWireError::InvalidPassword(_)), _) => Err(refusal(user, &LoginError::Refused)),
                    (Err(error), _) => Err(malformed(error)),
                }
            }
            Self::Over => Err(user_error(fatal("08P01", "the login is over"))),
        }
    }
}

fn malformed(error: PgWireError) -> PgWireError {
    user_error(fatal("08P01", format!("not a SCRAM message: {error}")))
}

/// What a client that is not let in is told, and the log.
pub(super) fn refusal(user: &str, error: &LoginError) -> PgWireError {
    match error {
        LoginError::Refused => {
            tracing::warn!(user, "SQL login refused");
            user_error(fatal("28P01", format!("password authentication failed for user \"{user}\"")))
        }
        LoginError::Unavailable { .. } => {
            tracing::warn!(user, %error, "SQL login impossible");
            user_error(fatal("58000", error.to_string()))
        }
    }
}
