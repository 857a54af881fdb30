//! An identity provider, which speaks OpenID Connect over HTTP: it checks what it is asked, signs what it says, and lies
//! when a test wants it to.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256},
};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// As the clock of a server in a test has it.
const NOW: i64 = 1_700_000_000;
/// With what RFC 6749 wants to be escaped in it.
pub const SECRET: &str = "planted client:secret+%";

/// The smallest picture that there is.
pub const PICTURE: &[u8] = b"GIF89a\x01\0\x01\0\0\0\0;";

/// What signs.
pub enum Key {
    Ec(EcdsaKeyPair),
    Rsa(Box<rsa::KeyPair>),
}

impl Key {
    pub fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    pub fn rsa() -> Self {
        Self::Rsa(Box::new(rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key")))
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ec(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }

    fn sign(&self, text: &str) -> Vec<u8> {
        match self {
            Self::Ec(pair) => pair.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature").as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
                    .expect("a signature");
                signature
            }
        }
    }

    fn public(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (text(&point[1..33]), text(&point[33..]));
                json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": id, "x": x, "y": y })
            }
            Self::Rsa(pair) => {
                // A sequence of two numbers: one of 256 bytes behind a zero, and one of three.
                let der = pair.public_key().as_ref();
                assert_eq!((der.len(), &der[..9]), (270, &[0x30, 0x82, 1, 10, 2, 0x82, 1, 1, 0][..]));
                json!({ "kty": "RSA", "use": "sig", "kid": id, "n": text(&der[9..265]), "e": text(&der[267..]) })
            }
        }
    }
}

/// How it deviates from what it should do.
#[derive(Default)]
pub struct Mischief {
    /// Put over the claims of ID tokens; null takes one away.
    pub claims: Value,
    /// The same for what it tells of its users.
    pub userinfo: Value,
    /// What the header of ID tokens says instead.
    pub header: Value,
    /// It signs with a key that it shows nobody.
    pub foreign_key: bool,
    /// It signs with the secret that it shares with its client.
    pub shared_key: bool,
    /// What the browser is sent back with beside what it should.
    pub answer: Vec<(String, String)>,
    /// It sends nobody back with a code.
    pub refuses: Option<String>,
    /// It does not look at the proof of who began a login.
    pub forgets_pkce: bool,
    /// It says that its answers name it, and they don't.
    pub promises_issuer: bool,
    /// It gives no token.
    pub fails: bool,
}

struct Grant {
    user: Value,
    nonce: String,
    challenge: String,
    redirect_uri: String,
}

struct Inner {
    /// Who sits at the browser.
    user: Value,
    grants: HashMap<String, Grant>,
    used: HashSet<String>,
    tokens: HashMap<String, Value>,
    key: Key,
    kid: u32,
    mischief: Mischief,
    count: u32,
    now: i64,
    /// What the last browser was sent with.
    asked: HashMap<String, String>,
}

#[derive(Clone)]
struct Shared {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

pub struct Provider {
    shared: Shared,
}

impl Provider {
    pub async fn start() -> Self {
        Self::with_key(Key::ec()).await
    }

    pub async fn with_key(key: Key) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let address = listener.local_addr().expect("an address");
        let inner = Inner {
            user: Value::Null,
            grants: HashMap::new(),
            used: HashSet::new(),
            tokens: HashMap::new(),
            key,
            kid: 1,
            mischief: Mischief::default(),
            count: 0,
            now: NOW,
            asked: HashMap::new(),
        };
        let shared = Shared { address, inner: Arc::new(Mutex::new(inner)) };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .route("/picture", get(async || PICTURE))
            .route("/page", get(async || "<svg onload=alert(1)>"))
            .with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { shared }
    }

    pub fn issuer(&self) -> String {
        self.shared.issuer()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().expect("not poisoned")
    }

    /// Who sits at the browser from now on.
    pub fn knows(&self, user: Value) {
        self.inner().user = user;
    }

    pub fn lies(&self, mischief: Mischief) {
        self.inner().mischief = mischief;
    }

    /// What the last browser was sent with.
    pub fn asked(&self) -> HashMap<String, String> {
        self.inner().asked.clone()
    }

    /// Its clock is that of the world from now on.
    pub fn lives_now(&self) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        self.inner().now = i64::try_from(now.as_secs()).expect("a time");
    }

    /// It signs with another key from now on, which it shows.
    pub fn changes_its_key(&self) {
        let mut inner = self.inner();
        inner.key = Key::ec();
        inner.kid += 1;
    }

    /// What it says when somebody has logged out there, with these changes.
    pub fn says_logged_out(&self, client: &str, changes: &Value) -> String {
        let mut inner = self.inner();
        inner.count += 1;
        let now = inner.now;
        let mut claims = json!({
            "iss": self.issuer(), "aud": client, "iat": now, "exp": now + 60, "jti": format!("j{}", inner.count),
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        merge(&mut claims, changes);
        inner.signed(&claims, "logout+jwt")
    }
}

impl Shared {
    fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("not poisoned")
    }
}

impl Inner {
    fn next(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}-{}", self.count)
    }

    fn signed(&self, claims: &Value, kind: &str) -> String {
        let mut header = json!({ "alg": self.key.algorithm(), "typ": kind, "kid": self.kid.to_string() });
        if self.mischief.shared_key {
            header["alg"] = "HS256".into();
        }
        merge(&mut header, &self.mischief.header);
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(claims));
        let signature = if header["alg"] == "none" {
            Vec::new()
        } else if self.mischief.shared_key {
            hmac_sha256(SECRET.as_bytes(), text.as_bytes())
        } else if self.mischief.foreign_key {
            Key::ec().sign(&text)
        } else {
            self.key.sign(&text)
        };
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
    aws_lc_rs::hmac::sign(&key, text).as_ref().to_vec()
}

/// Puts fields over those of an object; null takes one away.
fn merge(into: &mut Value, changes: &Value) {
    let Some(changes) = changes.as_object() else { return };
    let into = into.as_object_mut().expect("an object");
    for (key, value) in changes {
        if value.is_null() {
            into.remove(key);
        } else {
            into.insert(key.clone(), value.clone());
        }
    }
}

fn json_reply(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn discovery(State(shared): State<Shared>) -> Response {
    let at = |path: &str| format!("{}{path}", shared.issuer());
    let body = json!({
        "issuer": shared.issuer(),
        "authorization_endpoint": at("/authorize"),
        "token_endpoint": at("/token"),
        "userinfo_endpoint": at("/userinfo"),
        "jwks_uri": at("/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256"],
        "authorization_response_iss_parameter_supported": shared.inner().mischief.promises_issuer,
    });
    json_reply(StatusCode::OK, &body)
}

async fn keys(State(shared): State<Shared>) -> Response {
    let inner = shared.inner();
    json_reply(StatusCode::OK, &json!({ "keys": [inner.key.public(&inner.kid.to_string())] }))
}

/// Sends whoever sits at the browser back at once: they said yes long ago.
async fn authorize(State(shared): State<Shared>, uri: Uri) -> Response {
    let query = uri.query().unwrap_or_default();
    let asked: HashMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let mut inner = shared.inner();
    inner.asked.clone_from(&asked);
    let text = |key: &str| asked.get(key).cloned().unwrap_or_default();
    let good = text("response_type") == "code"
        && text("code_challenge_method") == "S256"
        && text("scope").split(' ').any(|scope| scope == "openid")
        && ["client_id", "state", "nonce", "code_challenge"].iter().all(|key| !text(key).is_empty());
    if !good {
        return (StatusCode::BAD_REQUEST, format!("{asked:?}")).into_response();
    }
    let code = inner.next("code");
    let mut back: url::Url = text("redirect_uri").parse().expect("a URL");
    back.query_pairs_mut().append_pair("state", &text("state"));
    match inner.mischief.refuses.clone() {
        Some(error) => _ = back.query_pairs_mut().append_pair("error", &error),
        None => _ = back.query_pairs_mut().append_pair("code", &code),
    }
    back.query_pairs_mut().extend_pairs(inner.mischief.answer.clone());
    let user = inner.user.clone();
    let grant =
        Grant { user, nonce: text("nonce"), challenge: text("code_challenge"), redirect_uri: text("redirect_uri") };
    inner.grants.insert(code, grant);
    (StatusCode::FOUND, [(header::LOCATION, back.to_string())]).into_response()
}

async fn token(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let text = |key: &str| form.get(key).cloned().unwrap_or_default();
    let refused = |error: &str| json_reply(StatusCode::BAD_REQUEST, &json!({ "error": error }));
    let Some(client) = client(&headers) else { return refused("invalid_client") };
    let mut inner = shared.inner();
    if inner.mischief.fails || text("grant_type") != "authorization_code" || !inner.used.insert(text("code")) {
        return refused("invalid_grant");
    }
    let Some(grant) = inner.grants.remove(&text("code")) else { return refused("invalid_grant") };
    let proof = URL_SAFE_NO_PAD.encode(Sha256::digest(text("code_verifier").as_bytes()));
    if grant.redirect_uri != text("redirect_uri") || proof != grant.challenge && !inner.mischief.forgets_pkce {
        return refused("invalid_grant");
    }
    let now = inner.now;
    let mut claims = json!({
        "iss": shared.issuer(), "aud": client, "iat": now, "exp": now + 3_600, "nonce": grant.nonce,
        "sub": grant.user["sub"],
    });
    if !grant.user["sid"].is_null() {
        claims["sid"] = grant.user["sid"].clone();
    }
    merge(&mut claims, &inner.mischief.claims);
    let access_token = inner.next("access");
    let id_token = inner.signed(&claims, "JWT");
    let mut told = grant.user;
    told.as_object_mut().expect("an object").remove("sid");
    merge(&mut told, &inner.mischief.userinfo);
    inner.tokens.insert(access_token.clone(), told);
    let body = json!({ "access_token": access_token, "token_type": "Bearer", "id_token": id_token });
    json_reply(StatusCode::OK, &body)
}

/// Whoever proves to be a client of ours.
fn client(headers: &HeaderMap) -> Option<String> {
    let basic = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(STANDARD.decode(basic).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let plain =
        |text: &str| url::form_urlencoded::parse(format!("x={text}").as_bytes()).next().map(|(_, v)| v.into_owned());
    (plain(secret)? == SECRET).then(|| plain(id))?
}

async fn userinfo(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let token =
        headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    match token.and_then(|token| shared.inner().tokens.get(token).cloned()) {
        Some(told) => json_reply(StatusCode::OK, &told),
        None => json_reply(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_token" })),
    }
}
