//! The style sheet, the scripts and the icon, built in. The hash of its content stands in the address of each, so that browsers
//! keep them for as long as they like and never show an old one.

use std::sync::LazyLock;

use axum::extract::RawPathParams;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

const STYLE: usize = 0;
const ICON: usize = 1;
const APP: usize = 2;
const BUILDER: usize = 3;
const TAIL: usize = 4;

const ASSETS: [Asset; 5] = [
    Asset { name: "style.css", kind: "text/css; charset=utf-8", text: include_str!("assets/style.css") },
    Asset { name: "icon.svg", kind: "image/svg+xml", text: include_str!("assets/icon.svg") },
    Asset { name: "app.js", kind: "text/javascript; charset=utf-8", text: include_str!("assets/app.js") },
    Asset {
        name: "builder.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("assets/builder.js"),
    },
    Asset { name: "tail.js", kind: "text/javascript; charset=utf-8", text: include_str!("assets/tail.js") },
];

static FILES: LazyLock<[String; ASSETS.len()]> =
    LazyLock::new(|| ASSETS.map(|asset| format!("{:016x}-{}", xxh3_64(asset.text.as_bytes()), asset.name)));

fn address(index: usize) -> String {
    FILES.get(index).map_or_else(String::new, |file| format!("/console/assets/{file}"))
}

/// Address of the style sheet.
pub(super) fn style() -> String {
    address(STYLE)
}

/// Address of the icon.
pub(super) fn icon() -> String {
    address(ICON)
}

/// Address of the script of all pages.
pub(super) fn app() -> String {
    address(APP)
}

/// Address of the script of the builder.
pub(super) fn builder() -> String {
    address(BUILDER)
}

/// Address of the script of the live tail.
pub(super) fn tail() -> String {
    address(TAIL)
}

/// One of them, by the name with its hash.
pub(super) async fn serve(path: RawPathParams) -> Response {
    let wanted = path.iter().next().map_or("", |(_, file)| file);
    let found = FILES.iter().zip(&ASSETS).find(|(file, _)| file.as_str() == wanted);
    let Some((_, asset)) = found else { return StatusCode::NOT_FOUND.into_response() };
    let headers =
        [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, asset.text).into_response()
}
