//! HTTP with a registry that may be slow, broken or hostile.
//!
//! One request here is several on the wire: it authenticates when asked to, follows redirects, and repeats
//! what failed for a passing reason. Each of these has a limit. Three things never happen: credentials go to
//! another host than the one they are for, a connection without TLS leaves this machine, and a body is read
//! beyond what its reader allows.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Certificate, Client, Method, Response, StatusCode, Url, redirect};
use tokio::time::{sleep, timeout};

use super::answer::{broken, stalled};
use super::auth::{Authorization, Scope};
use super::error::TransferError;
use super::reference::{Reference, is_loopback};
use super::upload::{self, Upload};

/// Most redirects of one request: registries send blobs to a store, which may send them to a cache.
const REDIRECTS_MAX: usize = 5;

/// Most repetitions of a request, with 0.5, 1, 2, 4 seconds between them by default.
const RETRIES_MAX: u32 = 4;

/// How patient a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Longest time to connect.
    pub connect: Duration,
    /// Longest time without progress: no answer, or less than some KiB of one.
    pub stall: Duration,
    /// Wait before the first repetition, doubled for each further one.
    pub retry_first: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            retry_first: Duration::from_millis(500),
        }
    }
}

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Certificates (PEM) that are trusted beside the system's. With them, loopback is spoken to with TLS too.
    pub authorities: Option<PathBuf>,
    /// The folder of Docker's configuration with the credentials; see [`super::docker_config_folder`].
    pub docker_config: Option<PathBuf>,
    /// How patient transfers are.
    pub patience: Patience,
    /// Told what failed, and the pause before it is tried again.
    pub on_repeat: Option<fn(&TransferError, Duration)>,
}

/// A request to a registry.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Upload>,
    pub(crate) scope: Scope,
    /// What is asked for, in messages.
    pub(crate) what: String,
}

impl Call {
    pub(crate) fn new(method: Method, url: Url, scope: Scope, what: impl Into<String>) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            scope,
            what: what.into(),
        }
    }

    pub(crate) fn accept(mut self, types: &'static str) -> Self {
        self.headers.insert(ACCEPT, HeaderValue::from_static(types));
        self
    }
}

#[derive(Debug)]
pub(crate) struct Transport {
    /// For registries elsewhere: TLS only, through the proxy that the environment names.
    remote: Client,
    /// For registries on this machine: no proxy, which would be elsewhere.
    loopback: Client,
    has_authorities: bool,
    pub(crate) docker_config: Option<PathBuf>,
    pub(crate) patience: Patience,
    on_repeat: Option<fn(&TransferError, Duration)>,
    pub(crate) known: Mutex<HashMap<(String, Scope), Authorization>>,
}

impl Transport {
    pub(crate) fn new(access: Access) -> Result<Self, TransferError> {
        // Whichever part of the process comes first installs the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let patience = access.patience;
        let authorities = access
            .authorities
            .as_deref()
            .map(read_authorities)
            .transpose()?;
        let builder = || {
            let mut builder = Client::builder()
                .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .referer(false)
                .connect_timeout(patience.connect);
            for certificate in authorities.iter().flatten() {
                builder = builder.add_root_certificate(certificate.clone());
            }
            builder
        };
        let here = [
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        ];
        let remote = builder().https_only(true).build();
        let loopback = builder()
            .no_proxy()
            .resolve_to_addrs("localhost", &here)
            .build();
        Ok(Self {
            remote: remote.map_err(TransferError::Tls)?,
            loopback: loopback.map_err(TransferError::Tls)?,
            has_authorities: authorities.is_some(),
            docker_config: access.docker_config,
            patience,
            on_repeat: access.on_repeat,
            known: Mutex::new(HashMap::new()),
        })
    }

    /// The address of something in a reference's repository.
    pub(crate) fn url(&self, reference: &Reference, rest: &str) -> Result<Url, TransferError> {
        let is_plain = reference.is_loopback() && !self.has_authorities;
        let scheme = if is_plain { "http" } else { "https" };
        let (host, repository) = (reference.host(), reference.repository());
        let text = format!("{scheme}://{host}/v2/{repository}/{rest}");
        text.parse().map_err(|_| TransferError::Answer {
            host: host.to_owned(),
            what: reference.to_string(),
            reason: "no address of a registry".to_owned(),
        })
    }

    /// Makes a request until it succeeds or fails for good. The answer is a success, or one of `also`.
    pub(crate) async fn call(
        &self,
        call: &Call,
        also: &[StatusCode],
    ) -> Result<Response, TransferError> {
        let mut wait = self.patience.retry_first;
        for left in (0..=RETRIES_MAX).rev() {
            let failure = match self.once(call, also).await {
                Err(failure) if left > 0 && failure.is_temporary() => failure,
                ended => return ended,
            };
            self.pause(&call.what, &failure, wait).await?;
            wait *= 2;
        }
        unreachable!("the last repetition returns")
    }

    /// Waits before what failed is tried again, and says so.
    pub(crate) async fn pause(
        &self,
        what: &str,
        failure: &TransferError,
        planned: Duration,
    ) -> Result<(), TransferError> {
        let wait = failure.pause(planned)?;
        tracing::debug!(what, %failure, ?wait, "trying again");
        if let Some(tell) = self.on_repeat {
            tell(failure, wait);
        }
        sleep(wait).await;
        Ok(())
    }

    /// As [`Self::call`], without repetitions.
    pub(crate) async fn once(
        &self,
        call: &Call,
        also: &[StatusCode],
    ) -> Result<Response, TransferError> {
        let response = self.authenticated(call).await?;
        if response.status().is_success() || also.contains(&response.status()) {
            return Ok(response);
        }
        Err(self.failure(call, response).await)
    }

    /// One request, with the credentials that its registry wants.
    async fn authenticated(&self, call: &Call) -> Result<Response, TransferError> {
        let key = (call.url.origin().ascii_serialization(), call.scope.clone());
        let mut authorization = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&key).cloned()
        };
        for may_ask in [true, false] {
            let response = self.redirected(call, authorization.as_ref()).await?;
            let is_refused = response.status() == StatusCode::UNAUTHORIZED;
            if !(may_ask && is_refused && same_origin(response.url(), &call.url)) {
                return Ok(response);
            }
            let answer = self.authorize(call, response.headers()).await?;
            authorization = Some(answer.clone());
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(key.clone(), answer);
        }
        unreachable!("the second round returns")
    }

    /// One request, followed to where the registry sends it.
    async fn redirected(
        &self,
        call: &Call,
        authorization: Option<&Authorization>,
    ) -> Result<Response, TransferError> {
        let mut url = call.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let host = host_of(&url);
            let mut request = self.client(&url)?.request(call.method.clone(), url.clone());
            request = request.headers(call.headers.clone());
            if let Some(authorization) = authorization.filter(|_| same_origin(&url, &call.url)) {
                request = request.header(AUTHORIZATION, authorization.header());
            }
            let response = match &call.body {
                None => self.answer(&host, request.send()).await?,
                Some(body) => upload::send(request, body, &host, self.patience.stall).await?,
            };
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED
            {
                return Ok(response);
            }
            let refuse = |reason| {
                let host = host.clone();
                Err(TransferError::Redirect { host, reason })
            };
            if call.body.is_some() || !matches!(call.method, Method::GET | Method::HEAD) {
                return refuse("an upload");
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok());
            let Some(next) = location.and_then(|text| url.join(text).ok()) else {
                return refuse("to no address");
            };
            let from_here = is_loopback(url.host_str().unwrap_or_default());
            let to_here = is_loopback(next.host_str().unwrap_or_default());
            match next.scheme() {
                "https" if from_here || !to_here => {}
                "http" if from_here && to_here => {}
                "https" => return refuse("to this machine"),
                _ => return refuse("to an address without TLS"),
            }
            url = next;
        }
        let host = host_of(&call.url);
        let reason = "more often than is followed";
        Err(TransferError::Redirect { host, reason })
    }

    /// The client for an address; none for what may not be spoken to without TLS.
    pub(crate) fn client(&self, url: &Url) -> Result<&Client, TransferError> {
        if is_loopback(url.host_str().unwrap_or_default()) {
            return Ok(&self.loopback);
        }
        if url.scheme() == "https" {
            return Ok(&self.remote);
        }
        let host = host_of(url);
        let reason = "to an address without TLS";
        Err(TransferError::Redirect { host, reason })
    }

    /// Waits for the head of an answer, as long as patience lasts.
    pub(crate) async fn answer(
        &self,
        host: &str,
        sent: impl Future<Output = reqwest::Result<Response>>,
    ) -> Result<Response, TransferError> {
        let stall = self.patience.stall;
        let connected = timeout(self.patience.connect + stall, sent).await;
        let answered = connected.map_err(|_| stalled(host, stall))?;
        answered.map_err(|error| broken(host, stall, error))
    }
}

/// The host and port of an address, for messages: the rest of it may be a signature that gives access.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

/// Largest file of certificates: all that a system trusts are a fifth of it.
const AUTHORITIES_BYTES_MAX: usize = 1 << 20;

fn read_authorities(path: &Path) -> Result<Vec<Certificate>, TransferError> {
    let unusable = |reason: String| TransferError::Authorities {
        path: path.to_owned(),
        reason,
    };
    let text = tidegate_store::read_regular(path, AUTHORITIES_BYTES_MAX)
        .map_err(|error| unusable(error.to_string()))?;
    let certificates =
        Certificate::from_pem_bundle(&text).map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("there are none in it".to_owned()));
    }
    Ok(certificates)
}
