//! Routes come from the metadata of ruma's request types: every path the endpoint ever had, with its method.
//!
//! A handler is an async function of [`Api`] and one of [`Client`], [`Public`], [`Optional`]:
//!
//! ```text
//! pub fn routes(r: Routes) -> Routes {
//!     r.client(create).client(send_to_device).with_limit(4 << 20)
//! }
//!
//! async fn create(api: Api, req: Client<create_room::v3::Request>) -> Result<create_room::v3::Response> { … }
//! ```

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::Request,
    routing::{MethodFilter, MethodRouter},
};
use futures_util::future::BoxFuture;
use hearth_core::{Error, Kind, Result};
use http::{Method, Response};
use ruma::api::{
    IncomingRequest, Metadata, OutgoingResponse,
    auth_scheme::{
        AccessToken, AccessTokenOptional, AppserviceTokenOptional, AuthScheme, NoAccessToken, NoAuthentication,
    },
    path_builder::PathBuilder,
};
use tokio_util::task::TaskTracker;

use super::{
    Api, edge,
    extract::{Call, Client, Download, Optional, Public, Token, Upload},
    pages::{self, Visit},
    respond,
};
use crate::service::rate_limit::Limited;

/// A body of this size is read from anybody.
const PUBLIC_LIMIT: usize = 64 << 10;
/// A form of this size is read from a browser.
const FORM_LIMIT: usize = 20 << 10;
/// A body of this size is read from a known user. An event may have 64 KiB; uploads of many keys are larger.
const CLIENT_LIMIT: usize = 1 << 20;

/// The endpoints that may be served to somebody without a token. An endpoint that the specification guards does not
/// compile as [`Routes::public`] or [`Routes::optional`].
pub trait Open: AuthScheme {}
impl Open for NoAuthentication {}
impl Open for NoAccessToken {}
impl Open for AccessTokenOptional {}
impl Open for AppserviceTokenOptional {}

/// Whether files are sent to somebody without a token, which the endpoint's own words decide.
pub trait Files: AuthScheme {
    #[doc(hidden)]
    const OPEN: bool;
}
impl Files for AccessToken {
    const OPEN: bool = false;
}
impl Files for NoAccessToken {
    const OPEN: bool = true;
}

pub(super) type Handler = Arc<dyn Fn(Api, Call) -> BoxFuture<'static, Result<Response<Body>>> + Send + Sync>;

/// One endpoint, under all its paths.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) paths: Vec<String>,
    pub(super) token: Token,
    /// The most bytes of body that are read.
    pub(super) limit: usize,
    pub(super) body: BodyKind,
    /// How often it may be asked, by a user or else by an address.
    pub(super) rate: Option<Limited>,
    /// Waits for news: it ends when its client goes away. Other writes go on to their end.
    pub(super) waits: bool,
    pub(super) handler: Handler,
    /// How it says that something went wrong.
    pub(super) refuse: fn(&Api, &Error) -> Response<Body>,
}

/// What is done with a request's body before its endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyKind {
    /// It is read, and has to be UTF-8.
    Json,
    /// It is read.
    Raw,
    /// Nothing: the endpoint reads it piece by piece.
    Streamed,
}

/// Collects endpoints, then becomes a router.
pub struct Routes {
    api: Api,
    routes: Vec<Route>,
    plain: Router,
}

impl Routes {
    pub fn new(api: Api) -> Self {
        Self { api, routes: Vec::new(), plain: Router::new() }
    }

    /// An endpoint for users with an access token.
    pub fn client<R, H, F>(self, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::OutgoingResponse: Send,
        H: Fn(Api, Client<R>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<R::OutgoingResponse>> + Send + 'static,
    {
        self.client_as::<R, R::OutgoingResponse, H, F>(handler)
    }

    /// The same where ruma's type can't say the answer as clients want it.
    pub fn client_as<R, A, H, F>(self, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        A: OutgoingResponse + Send,
        H: Fn(Api, Client<R>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<A>> + Send + 'static,
    {
        self.add::<R>(
            Token::Required,
            CLIENT_LIMIT,
            Arc::new(move |api, call| {
                let handler = handler.clone();
                Box::pin(async move { respond::ok(handler(api, Client::from_call(call)?).await?) })
            }),
        )
    }

    /// The same where the answer is made while it is sent.
    pub fn client_streamed<R, H, F>(self, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        H: Fn(Api, Client<R>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response<Body>>> + Send + 'static,
    {
        self.add::<R>(
            Token::Required,
            CLIENT_LIMIT,
            Arc::new(move |api, call| {
                let handler = handler.clone();
                Box::pin(async move { handler(api, Client::from_call(call)?).await })
            }),
        )
    }

    /// The same where a user sends a file, which is read while it comes in.
    pub fn upload<R, A, H, F>(self, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        A: OutgoingResponse + Send,
        H: Fn(Api, Upload<R>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<A>> + Send + 'static,
    {
        self.add::<R>(
            Token::Required,
            usize::MAX,
            Arc::new(move |api, call| {
                let handler = handler.clone();
                Box::pin(async move { respond::ok(handler(api, Upload::from_call(call)?).await?) })
            }),
        )
        .last(|route| route.body = BodyKind::Streamed)
    }

    /// An endpoint that sends files, to users with an access token or, if the specification has it so, to anybody.
    pub fn download<R, H, F>(self, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Files,
        H: Fn(Api, Download<R>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response<Body>>> + Send + 'static,
    {
        self.add::<R>(
            if R::Authentication::OPEN { Token::Ignored } else { Token::Required },
            PUBLIC_LIMIT,
            Arc::new(move |api, call| {
                let handler = handler.clone();
                Box::pin(async move { handler(api, Download::from_call(call)?).await })
            }),
        )
    }

    /// An endpoint for anybody; a token is not looked at.
    pub fn public<R, H, F>(self, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Open,
        R::OutgoingResponse: Send,
        H: Fn(Api, Public<R>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<R::OutgoingResponse>> + Send + 'static,
    {
        self.add::<R>(
            Token::Ignored,
            PUBLIC_LIMIT,
            Arc::new(move |api, call| {
                let handler = handler.clone();
                Box::pin(async move { respond::ok(handler(api, Public::from_call(call)?).await?) })
            }),
        )
    }

    /// An endpoint for anybody, that answers more to a known user. A token that is sent must be a known one.
    pub fn optional<R, H, F>(self, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Open,
        R::OutgoingResponse: Send,
        H: Fn(Api, Optional<R>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<R::OutgoingResponse>> + Send + 'static,
    {
        self.add::<R>(
            Token::Optional,
            PUBLIC_LIMIT,
            Arc::new(move |api, call| {
                let handler = handler.clone();
                Box::pin(async move { respond::ok(handler(api, Optional::from_call(call)?).await?) })
            }),
        )
    }

    /// How many bytes of body the last endpoint takes, up to `max_request_size`.
    pub fn with_limit(self, bytes: usize) -> Self {
        self.last(|route| route.limit = bytes)
    }

    /// The last endpoint takes a body that is not JSON, of up to `max_request_size`.
    pub fn raw_body(self) -> Self {
        self.last(|route| {
            route.body = BodyKind::Raw;
            route.limit = usize::MAX;
        })
    }

    /// The last endpoint may be asked so often: by a user, or where it takes no token, from an address.
    pub fn limited(self, what: Limited) -> Self {
        self.last(|route| route.rate = Some(what))
    }

    /// The last endpoint waits for news although its method is not GET: when its client goes away, it ends.
    pub fn waits(self) -> Self {
        self.last(|route| route.waits = true)
    }

    /// A page that is no Matrix endpoint, for GET.
    pub fn plain<H, F>(mut self, path: &'static str, handler: H) -> Self
    where
        H: Fn(Api) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let api = self.api.clone();
        self.plain = self.plain.route(path, edge::page(path, move || handler(api.clone())));
        self
    }

    /// A page for browsers, at the paths of one of ruma's endpoints.
    pub(super) fn page_of<R, H, F>(self, handler: H) -> Self
    where
        R: Metadata,
        R::Authentication: Open,
        H: Fn(Api, Visit) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        self.add_page(R::METHOD, R::PATH_BUILDER.all_paths().map(ToOwned::to_owned).collect(), handler)
    }

    /// A page for browsers, at a path of ours.
    pub(super) fn page<H, F>(self, method: Method, path: &'static str, handler: H) -> Self
    where
        H: Fn(Api, Visit) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        self.add_page(method, vec![path.to_owned()], handler)
    }

    fn add_page<H, F>(mut self, method: Method, paths: Vec<String>, handler: H) -> Self
    where
        H: Fn(Api, Visit) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        self.routes.push(Route {
            method,
            paths,
            token: Token::Ignored,
            limit: FORM_LIMIT,
            body: BodyKind::Raw,
            rate: None,
            // What a page does is done once, so it is brought to its end.
            waits: false,
            handler: Arc::new(move |api, call| {
                let page = handler(api, Visit::from_call(call));
                Box::pin(async move { Ok(page.await) })
            }),
            refuse: pages::failed,
        });
        self
    }

    pub fn api(&self) -> &Api {
        &self.api
    }

    fn last(mut self, change: impl FnOnce(&mut Route)) -> Self {
        change(self.routes.last_mut().expect("an endpoint comes before its options"));
        self
    }

    fn add<R: IncomingRequest + Metadata>(mut self, token: Token, limit: usize, handler: Handler) -> Self {
        self.routes.push(Route {
            method: R::METHOD,
            paths: R::PATH_BUILDER.all_paths().flat_map(spellings).collect(),
            token,
            limit,
            body: BodyKind::Json,
            rate: None,
            waits: R::METHOD == Method::GET,
            handler,
            refuse: |_, error| respond::error(error),
        });
        self
    }

    /// `running` counts the requests that go on without their client, so that a stop can wait for them.
    pub fn into_router(self, running: &TaskTracker) -> Router {
        let max = self.api.config.http.max_request_size;
        let mut by_path: BTreeMap<String, MethodRouter> = BTreeMap::new();
        for mut route in self.routes {
            route.limit = route.limit.min(max);
            let filter = MethodFilter::try_from(route.method.clone()).expect("Matrix uses ordinary methods");
            let paths = std::mem::take(&mut route.paths);
            let name: Arc<str> = paths.last().map_or("", |p| p).into();
            let endpoint = edge::Endpoint::new(self.api.clone(), route, name, running.clone());
            for path in paths {
                let endpoint = endpoint.clone();
                let before = by_path.remove(&path).unwrap_or_default();
                let after = before.on(filter, move |request: Request| endpoint.serve(Box::new(request)));
                by_path.insert(path, after);
            }
        }
        let mut router = self.plain;
        for (path, methods) in by_path {
            router = router.route(&path, methods);
        }
        refuse_the_rest(router)
    }
}

/// <https://spec.matrix.org/v1.18/client-server-api/#standard-error-response>
pub(super) fn refuse_the_rest(router: Router) -> Router {
    router.fallback(async || respond::error(&Error::unrecognized("Unrecognized request"))).method_not_allowed_fallback(
        async || respond::error(&Error::new(Kind::MethodNotAllowed, "This path does not take this method")),
    )
}

/// The spellings that clients use for one path: an empty state key may be left out, with its slash or without, and a
/// slash that ends a path may be forgotten.
fn spellings(path: &str) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(short) = path.strip_suffix("/{state_key}") {
        all.extend([short.to_owned(), format!("{short}/")]);
    } else if let Some(short) = path.strip_suffix('/') {
        all.push(short.to_owned());
    }
    all.push(path.to_owned());
    all
}

#[cfg(test)]
mod tests {
    use super::spellings;

    #[test]
    fn an_empty_state_key_may_be_left_out() {
        assert_eq!(spellings("/a/{type}/{state_key}"), ["/a/{type}", "/a/{type}/", "/a/{type}/{state_key}"]);
        assert_eq!(spellings("/pushrules/"), ["/pushrules", "/pushrules/"]);
        assert_eq!(spellings("/sync"), ["/sync"]);
    }
}
