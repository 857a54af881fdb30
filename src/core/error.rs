//! The one error type of everything above storage. Made where the reason is known; turned into a status, an errcode and
//! a log line in one place, the HTTP layer.

use std::borrow::Cow;

/// The result of everything above storage.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that a client may see, or the internal one that it may not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request can't be served, and the client should know why.
    #[error("{kind:?}: {message}")]
    Matrix { kind: Kind, message: Cow<'static, str> },
    /// User-interactive authentication: what the client has to do, as the body of a 401.
    #[error("user-interactive authentication is required")]
    Uia(Box<Uia>),
    /// Ours to mend. The client sees only that something went wrong; the text goes to the log.
    #[error("internal: {0}")]
    Internal(String),
}

/// What a client has still to do before a guarded request is served.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Uia {
    pub flows: Vec<UiaFlow>,
    pub completed: Vec<String>,
    pub params: serde_json::Value,
    pub session: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub error: Option<UiaError>,
}

/// One way to complete user-interactive authentication.
#[derive(Debug, Clone, serde::Serialize)]
pub struct UiaFlow {
    pub stages: Vec<String>,
}

/// Why the last attempted stage failed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct UiaError {
    pub errcode: String,
    pub error: String,
}

/// What went wrong, by the names of the Matrix specification. The HTTP layer maps each to a status and an errcode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    BadAlias,
    BadJson,
    BadState,
    CannotLeaveServerNoticeRoom,
    /// Something was uploaded there already: 409.
    CannotOverwriteMedia,
    /// Somebody else has it already: 409.
    Conflict,
    /// The user stopped following the thread after the event because of which a client would have them follow it: 409.
    ConflictingUnsubscription,
    /// The user has said the same of the same event before.
    DuplicateAnnotation,
    Exclusive,
    Forbidden,
    GuestAccessForbidden,
    IncompatibleRoomVersion {
        room_version: String,
    },
    InvalidParam,
    InvalidRoomState,
    InvalidSignature,
    InvalidUsername,
    /// The key of a profile field is too long.
    KeyTooLarge,
    LimitExceeded {
        retry_after_ms: u64,
    },
    MissingParam,
    MissingToken,
    /// The method is not one that this path has: 405.
    MethodNotAllowed,
    NotFound,
    /// The event is not in the thread.
    NotInThread,
    NotJson,
    /// Nothing was uploaded there yet: 504.
    NotYetUploaded,
    /// The whole profile would be too large.
    ProfileTooLarge,
    /// There is nothing in what was asked for: 416.
    RangeNotSatisfiable,
    /// This kind of account data is written by the server only: 405.
    ReadOnly,
    RoomInUse,
    TooLarge,
    /// Overloaded or stopping: 503, worth trying again.
    Unavailable,
    Unknown,
    /// Somebody else, whom the request needs, gave no answer that is of use: 502.
    Unreachable,
    /// A position on a connection that we don't know (any more).
    UnknownPos,
    UnknownToken {
        soft_logout: bool,
    },
    Unrecognized,
    UnsupportedRoomVersion,
    UserDeactivated,
    UserInUse,
    /// The user has as much of something as they may.
    UserLimitExceeded {
        info_uri: String,
    },
    UserLocked,
    WeakPassword,
    /// Keys are put into the newest backup only.
    WrongRoomKeysVersion {
        current_version: String,
    },
}

macro_rules! shorthand {
    ($($(#[$doc:meta])* $name:ident => $kind:expr;)*) => {
        $($(#[$doc])* pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::Matrix { kind: $kind, message: message.into() }
        })*
    };
}

impl Error {
    shorthand! {
        bad_json => Kind::BadJson;
        bad_state => Kind::BadState;
        forbidden => Kind::Forbidden;
        invalid_param => Kind::InvalidParam;
        missing_param => Kind::MissingParam;
        not_found => Kind::NotFound;
        not_json => Kind::NotJson;
        too_large => Kind::TooLarge;
        unavailable => Kind::Unavailable;
        unknown => Kind::Unknown;
        unrecognized => Kind::Unrecognized;
        /// A token that we don't know (any more).
        unknown_token => Kind::UnknownToken { soft_logout: false };
    }

    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Matrix { kind, message: message.into() }
    }

    /// The connection has to begin anew.
    pub fn unknown_pos() -> Self {
        Self::new(Kind::UnknownPos, "This position of the connection is not known any more")
    }

    pub fn internal(what: impl std::fmt::Display) -> Self {
        Self::Internal(what.to_string())
    }
}
