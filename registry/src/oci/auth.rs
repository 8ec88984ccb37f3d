//! Answers to a registry that asks who we are.
//!
//! A registry answers 401 with a challenge: a name and password with each request (Basic), or a token from
//! a server that it names (Bearer). The token server gets the registry's own credentials and no others.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::credentials::{self, Credentials};
use super::error::TransferError;
use super::reference::is_loopback;
use super::transport::{Call, Transport, host_of};

/// Most bytes of a token server's answer: tokens of large organisations have some KiB.
const TOKEN_BYTES_MAX: usize = 256 << 10;

/// What is to be done in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    Pull(String),
    Push(String),
}

impl Scope {
    fn text(&self) -> String {
        match self {
            Self::Pull(repository) => format!("repository:{repository}:pull"),
            Self::Push(repository) => format!("repository:{repository}:pull,push"),
        }
    }
}

/// What makes a request ours. Never shown.
#[derive(Clone)]
pub(crate) struct Authorization(HeaderValue);

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorization")
    }
}

impl Authorization {
    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    fn new(text: &str) -> Option<Self> {
        let mut value = HeaderValue::from_str(text).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }

    fn basic(user: &str, password: &str) -> Option<Self> {
        let pair = format!("{user}:{password}");
        Self::new(&format!("Basic {}", STANDARD.encode(pair)))
    }
}

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// The challenge that is answered: tokens before passwords, since a token is good for less.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for header in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = header.to_str() else { continue };
        for challenge in http_auth::parse_challenges(text).unwrap_or_default() {
            let parameter = |name: &str| {
                let mut parameters = challenge.params.iter();
                let value = parameters.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                Some(value.1.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                let service = parameter("service");
                return Some(Challenge::Bearer {
                    realm: parameter("realm")?,
                    service,
                });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                found = Some(Challenge::Basic);
            }
        }
    }
    found
}

impl Transport {
    /// Which credentials there are for a call's registry, for messages.
    pub(crate) async fn found(&self, call: &Call) -> &'static str {
        self.credentials(&call.url)
            .await
            .map_or("they cannot be read", |credentials| credentials.kind())
    }

    async fn credentials(&self, registry: &Url) -> Result<Credentials, TransferError> {
        let host = host_of(registry);
        let read = credentials::read(self.docker_config.clone(), &host).await;
        read.map_err(|source| TransferError::Credentials { host, source })
    }

    /// What answers the challenge that a call met.
    pub(crate) async fn authorize(
        &self,
        call: &Call,
        headers: &HeaderMap,
    ) -> Result<Authorization, TransferError> {
        let host = host_of(&call.url);
        let credentials = self.credentials(&call.url).await?;
        let found = credentials.kind();
        let refused = || TransferError::Unauthorized {
            host: host.clone(),
            what: call.what.clone(),
            found,
        };
        match challenge(headers) {
            None => Err(TransferError::Answer {
                host: host.clone(),
                what: call.what.clone(),
                reason: "a refusal that asks for nothing that is known".to_owned(),
            }),
            Some(Challenge::Basic) => match &credentials {
                Credentials::Password { user, password } => {
                    Authorization::basic(user, password).ok_or_else(refused)
                }
                Credentials::Anonymous | Credentials::Identity(_) => Err(refused()),
            },
            Some(Challenge::Bearer { realm, service }) => {
                let realm = self.realm(call, &realm)?;
                self.token(call, realm, service, credentials).await
            }
        }
    }

    /// The token server, if it may be spoken to.
    fn realm(&self, call: &Call, text: &str) -> Result<Url, TransferError> {
        let host = host_of(&call.url);
        let refuse = |reason: &str| TransferError::Answer {
            host: host.clone(),
            what: call.what.clone(),
            reason: reason.to_owned(),
        };
        let realm: Url = text
            .parse()
            .map_err(|_| refuse("a token server that is no address"))?;
        let is_here = |url: &Url| is_loopback(url.host_str().unwrap_or_default());
        match realm.scheme() {
            "https" => Ok(realm),
            "http" if is_here(&realm) && is_here(&call.url) => Ok(realm),
            _ => Err(refuse("a token server without TLS")),
        }
    }

    async fn token(
        &self,
        call: &Call,
        realm: Url,
        service: Option<String>,
        credentials: Credentials,
    ) -> Result<Authorization, TransferError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let host = host_of(&realm);
        let found = credentials.kind();
        let scope = call.scope.text();
        let mut parameters = vec![("scope", scope)];
        parameters.extend(service.map(|service| ("service", service)));
        let client = self.client(&realm)?;
        let request = match &credentials {
            Credentials::Identity(token) => {
                parameters.push(("grant_type", "refresh_token".to_owned()));
                parameters.push(("refresh_token", token.clone()));
                parameters.push(("client_id", "tidegate".to_owned()));
                let mut form = Url::parse("form:").expect("a constant address");
                form.query_pairs_mut().extend_pairs(&parameters);
                let body = form.query().unwrap_or_default().to_owned();
                let form = "application/x-www-form-urlencoded";
                client.post(realm).header("Content-Type", form).body(body)
            }
            Credentials::Password { user, password } => {
                let request = client.get(realm).query(&parameters);
                request.basic_auth(user, Some(password))
            }
            Credentials::Anonymous => client.get(realm).query(&parameters),
        };
        let response = self.answer(&host, request.send()).await?;
        let asked = Call::new(Method::GET, call.url.clone(), call.scope.clone(), "a token");
        match response.status() {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                let what = call.what.clone();
                return Err(TransferError::Unauthorized { host, what, found });
            }
            status if status.is_redirection() => {
                let reason = "a request for a token";
                return Err(TransferError::Redirect { host, reason });
            }
            _ => return Err(self.failure(&asked, response).await),
        }
        let body = self.body(response, TOKEN_BYTES_MAX, "a token").await?;
        let answer: Option<Answer> = serde_json::from_slice(&body).ok();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        let authorization = token.and_then(|token| Authorization::new(&format!("Bearer {token}")));
        authorization.ok_or_else(|| TransferError::Answer {
            host,
            what: "a token".to_owned(),
            reason: "none".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, line.parse().unwrap());
        }
        challenge(&headers)
    }

    #[test]
    fn tokens_are_preferred_to_passwords() {
        let bearer = Challenge::Bearer {
            realm: "https://a.example/token".to_owned(),
            service: Some("a \"b\"".to_owned()),
        };
        let text = r#"Bearer realm="https://a.example/token",service="a \"b\"",scope="x""#;
        assert_eq!(read(&[text]), Some(bearer));
        let both = [r#"Basic realm="x""#, r#"bearer REALM="https://a.example/""#];
        assert!(matches!(
            read(&both),
            Some(Challenge::Bearer { service: None, .. })
        ));
        assert_eq!(read(&[r#"basic realm="x""#]), Some(Challenge::Basic));
    }

    #[test]
    fn what_is_no_known_challenge_is_none() {
        for lines in [
            &[][..],
            &["Negotiate"],
            &["Bearer"],
            &["\"", ",,,"],
            &["Digest realm=\"x\""],
        ] {
            assert_eq!(read(lines), None, "{lines:?}");
        }
    }
}
