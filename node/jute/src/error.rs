//! Error codes of the protocol, and what can be wrong with received bytes.

use std::fmt;

/// A code of a reply header; 0 is success. Codes this crate does not know are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub i32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: ErrorCode = ErrorCode($value);)*

            /// The code's name in words, `None` for a code that ZooKeeper does not define.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// No error.
    OK = 0, "ok";
    /// Something went wrong that is not the client's fault.
    SYSTEM_ERROR = -1, "system error";
    /// In a multi: this operation was not tried, since an earlier one failed.
    RUNTIME_INCONSISTENCY = -2, "runtime inconsistency";
    /// A data inconsistency was found.
    DATA_INCONSISTENCY = -3, "data inconsistency";
    /// The connection was lost (made by clients).
    CONNECTION_LOSS = -4, "connection loss";
    /// The request could not be decoded.
    MARSHALLING_ERROR = -5, "marshalling error";
    /// The operation is not implemented.
    UNIMPLEMENTED = -6, "unimplemented";
    /// The operation timed out (made by clients).
    OPERATION_TIMEOUT = -7, "operation timeout";
    /// An argument is not valid.
    BAD_ARGUMENTS = -8, "bad arguments";
    /// The session is not known.
    UNKNOWN_SESSION = -12, "unknown session";
    /// No quorum of the new configuration is connected.
    NEW_CONFIG_NO_QUORUM = -13, "no quorum of the new configuration";
    /// Another reconfiguration is under way.
    RECONFIG_IN_PROGRESS = -14, "reconfiguration in progress";
    /// The boundary above which errors are the user's (never sent).
    API_ERROR = -100, "api error";
    /// The node does not exist.
    NO_NODE = -101, "no node";
    /// The connection has no right to do this.
    NO_AUTH = -102, "not authorised";
    /// The expected version is not the current one.
    BAD_VERSION = -103, "bad version";
    /// Ephemeral nodes have no children.
    NO_CHILDREN_FOR_EPHEMERALS = -108, "no children for ephemerals";
    /// The node exists already.
    NODE_EXISTS = -110, "node exists";
    /// The node has children.
    NOT_EMPTY = -111, "not empty";
    /// The session has ended.
    SESSION_EXPIRED = -112, "session expired";
    /// A callback is not valid (made by clients).
    INVALID_CALLBACK = -113, "invalid callback";
    /// The ACL is not valid.
    INVALID_ACL = -114, "invalid acl";
    /// Authentication failed.
    AUTH_FAILED = -115, "authentication failed";
    /// The session is attached elsewhere by now.
    SESSION_MOVED = -118, "session moved";
    /// A read-only server cannot do this.
    NOT_READ_ONLY = -119, "not read-only";
    /// A local session cannot own ephemeral nodes.
    EPHEMERAL_ON_LOCAL_SESSION = -120, "ephemeral on local session";
    /// There is no such watch.
    NO_WATCHER = -121, "no such watch";
    /// The request timed out (made by clients).
    REQUEST_TIMEOUT = -122, "request timeout";
    /// Reconfiguration is switched off.
    RECONFIG_DISABLED = -123, "reconfiguration disabled";
    /// The server demands SASL authentication first.
    SESSION_CLOSED_REQUIRE_SASL_AUTH = -124, "session closed: sasl authentication required";
    /// A quota would be exceeded.
    QUOTA_EXCEEDED = -125, "quota exceeded";
    /// The operation waited too long in the server's queue.
    THROTTLED_OP = -127, "throttled";
}

impl ErrorCode {
    /// Whether this is success.
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ErrorCode {}

/// What was wrong with received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record ends inside a field.
    #[error("record ends inside `{field}`")]
    Truncated {
        /// The field that was being read.
        field: &'static str,
    },
    /// A length or count is negative (other than -1) or longer than the record.
    #[error("length {len} of `{field}` is not possible")]
    Length {
        /// The field that was being read.
        field: &'static str,
        /// The length the bytes claim.
        len: i32,
    },
    /// A string is not UTF-8.
    #[error("`{field}` is not UTF-8")]
    Utf8 {
        /// The field that was being read.
        field: &'static str,
    },
    /// A value has no meaning in its field.
    #[error("value {value} of `{field}` has no meaning")]
    Value {
        /// The field that was being read.
        field: &'static str,
        /// The value found.
        value: i32,
    },
    /// The request is of a type this crate does not know.
    #[error("unknown operation {0}")]
    UnknownOp(i32),
    /// A multi contains an operation that a multi cannot contain.
    #[error("operation {0} is not allowed in a multi")]
    MultiOp(i32),
    /// A multi mixes reads and writes.
    #[error("multi mixes reads and writes")]
    MixedMulti,
}
