//! Which handler a method and a path mean. Pure.

use http::Method;

use super::lab::{CORRUPT_PREFIX, LINK_PREFIX};

/// Before every key.
pub const KEY_PREFIX: &str = "/key/";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Status,
    GetKey,
    PutKey,
    DeleteKey,
    Keys,
    Changes,
    Compact,
    StateHash,
    LabNetwork,
    LabLink,
    LabHeal,
    LabDisk,
    LabFailDisk,
    LabCorrupt,
    Live,
    Ready,
    Health,
    Version,
    Metrics,
    /// `OPTIONS` on any path.
    Preflight,
    WrongMethod {
        allow: &'static str,
    },
    Unknown,
}

const READ: &str = "GET, HEAD, OPTIONS";

/// `path` as it was sent, still percent-encoded.
pub fn find(method: &Method, path: &str) -> Route {
    if method == Method::OPTIONS {
        return Route::Preflight;
    }
    if path.starts_with(KEY_PREFIX) {
        return match *method {
            Method::GET | Method::HEAD => Route::GetKey,
            Method::PUT => Route::PutKey,
            Method::DELETE => Route::DeleteKey,
            _ => Route::WrongMethod { allow: "GET, HEAD, PUT, DELETE, OPTIONS" },
        };
    }
    if path.starts_with(LINK_PREFIX) {
        return match *method {
            Method::PUT => Route::LabLink,
            _ => Route::WrongMethod { allow: "PUT, OPTIONS" },
        };
    }
    if path.starts_with(CORRUPT_PREFIX) {
        return match *method {
            Method::POST => Route::LabCorrupt,
            _ => Route::WrongMethod { allow: "POST, OPTIONS" },
        };
    }
    let read = |route| match *method {
        Method::GET | Method::HEAD => route,
        _ => Route::WrongMethod { allow: READ },
    };
    match path {
        "/status" => read(Route::Status),
        "/livez" => read(Route::Live),
        "/readyz" => read(Route::Ready),
        "/health" => read(Route::Health),
        "/version" => read(Route::Version),
        "/metrics" => read(Route::Metrics),
        "/v1/keys" => read(Route::Keys),
        "/v1/changes" => read(Route::Changes),
        "/v1/state-hash" => read(Route::StateHash),
        "/v1/compact" if method == Method::POST => Route::Compact,
        "/v1/compact" => Route::WrongMethod { allow: "POST, OPTIONS" },
        "/v1/lab/network" if method == Method::DELETE => Route::LabHeal,
        "/v1/lab/network" if matches!(*method, Method::GET | Method::HEAD) => Route::LabNetwork,
        "/v1/lab/network" => Route::WrongMethod { allow: "GET, HEAD, DELETE, OPTIONS" },
        "/v1/lab/disk" if method == Method::PUT => Route::LabFailDisk,
        "/v1/lab/disk" if matches!(*method, Method::GET | Method::HEAD) => Route::LabDisk,
        "/v1/lab/disk" => Route::WrongMethod { allow: "GET, HEAD, PUT, OPTIONS" },
        _ => Route::Unknown,
    }
}

impl Route {
    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Route::Status => "/status",
            Route::GetKey | Route::PutKey | Route::DeleteKey => "/key/{key}",
            Route::Keys => "/v1/keys",
            Route::Changes => "/v1/changes",
            Route::Compact => "/v1/compact",
            Route::StateHash => "/v1/state-hash",
            Route::LabNetwork | Route::LabLink | Route::LabHeal => "/v1/lab/network",
            Route::LabDisk | Route::LabFailDisk => "/v1/lab/disk",
            Route::LabCorrupt => "/v1/lab/corrupt/{key}",
            Route::Live => "/livez",
            Route::Ready => "/readyz",
            Route::Health => "/health",
            Route::Version => "/version",
            Route::Metrics => "/metrics",
            Route::Preflight | Route::WrongMethod { .. } | Route::Unknown => "other",
        }
    }

    /// Routes whose errors are `application/problem+json`.
    pub fn is_v1(self) -> bool {
        matches!(self, Route::Keys | Route::Changes | Route::Compact | Route::StateHash) || self.is_lab()
    }

    fn is_lab(self) -> bool {
        matches!(
            self,
            Route::LabNetwork
                | Route::LabLink
                | Route::LabHeal
                | Route::LabDisk
                | Route::LabFailDisk
                | Route::LabCorrupt
        )
    }

    /// Routes whose refusals say what became of the write.
    pub fn is_write(self) -> bool {
        matches!(self, Route::PutKey | Route::DeleteKey | Route::Compact)
    }

    /// Whether the limit of requests at once applies. What operators need to see an
    /// overload, and what costs nothing, is exempt.
    pub fn is_limited(self) -> bool {
        let keys = matches!(self, Route::GetKey | Route::PutKey | Route::DeleteKey);
        keys || (self.is_v1() && !self.is_lab())
    }
}

/// A fixed set of labels, whatever methods clients invent.
pub fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chapters_paths_and_no_others() {
        assert_eq!(find(&Method::GET, "/status"), Route::Status);
        assert_eq!(find(&Method::PUT, "/key/a/../b"), Route::PutKey);
        assert_eq!(find(&Method::DELETE, "/key/"), Route::DeleteKey);
        assert_eq!(find(&Method::OPTIONS, "/anything"), Route::Preflight);
        for path in
            ["/", "/key", "/status/", "/Status", "//status", "/keys/a", "/v1/key/a", "/internal/replicate"]
        {
            assert_eq!(find(&Method::GET, path), Route::Unknown, "{path}");
        }
    }

    #[test]
    fn a_known_path_names_its_methods() {
        for (method, path) in
            [(Method::POST, "/key/a"), (Method::PUT, "/status"), (Method::GET, "/v1/compact")]
        {
            let Route::WrongMethod { allow } = find(&method, path) else {
                panic!("{method} {path} has a handler")
            };
            assert!(!allow.contains(method.as_str()), "{method} {path}: {allow}");
        }
    }
}
