//! The style sheet and the script, carried in the binary and named by what is in them.
//!
//! A name never has another content, so browsers keep it for ever and a new version is a new name.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::palette;
use crate::server::http::problem;
use crate::units::hex;

/// A file that pages load.
pub struct Asset {
    /// Its name, with a hash of its content.
    pub name: String,
    kind: &'static str,
    text: String,
}

impl Asset {
    fn new(stem: &str, extension: &str, kind: &'static str, text: String) -> Self {
        let hash = hex(&Sha256::digest(text.as_bytes())[..8]);
        Self { name: format!("{stem}-{hash}.{extension}"), kind, text }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/assets/{}", self.name)
    }
}

/// The style sheet, with the classes of a log's colours.
pub static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let text = format!("{}\n{}", include_str!("assets/page.css"), palette::css());
    Asset::new("page", "css", "text/css; charset=utf-8", text)
});

/// The script.
pub static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("page", "js", "text/javascript; charset=utf-8", include_str!("assets/page.js").to_owned())
});

/// Answers with one of them.
pub async fn serve(Path(file): Path<String>) -> Response {
    let Some(asset) = [&*STYLE, &*SCRIPT].into_iter().find(|asset| asset.name == file) else {
        return problem::with_status(404, "not_found", "there is no such file: reload the page that asked for it");
    };
    let headers = [(CONTENT_TYPE, asset.kind), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, asset.text.as_str()).into_response()
}
