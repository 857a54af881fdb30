//! A request as its sender made it, and all of what comes back.

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use url::Url;

use super::{AGENT, Bounds, Failure, HttpClient, failure};

impl HttpClient {
    /// Sends a request to where its URI says. What comes back may be a redirection: nobody goes there.
    pub async fn send(&self, request: Request<Bytes>, bounds: Bounds) -> Result<Response<Bytes>, Failure> {
        let url = Url::parse(&request.uri().to_string()).map_err(|_| Failure::BadUrl("this is not a URL"))?;
        self.check(&url)?;
        let mut request = request.map(Full::new);
        request.headers_mut().insert(header::USER_AGENT, AGENT);
        // What is in it proves something.
        if let Some(value) = request.headers_mut().get_mut(header::AUTHORIZATION) {
            value.set_sensitive(true);
        }
        let exchange = async {
            let (parts, body) = self.inner.request(request).await.map_err(|e| failure(&e))?.into_parts();
            match Limited::new(body, bounds.bytes).collect().await {
                Ok(body) => Ok(Response::from_parts(parts, body.to_bytes())),
                Err(e) if e.is::<LengthLimitError>() => Err(Failure::TooLarge),
                Err(e) => Err(failure(&*e)),
            }
        };
        tokio::time::timeout(bounds.time, exchange).await.unwrap_or(Err(Failure::TooLate))
    }
}
