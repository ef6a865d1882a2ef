//! The page of a mapper: a live map of its services and instances, in any browser. It asks for
//! `/status.json` and for nothing else, and its parts are in this executable.

use crate::http::{Page, Route};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What the page is made of, besides itself.
const PARTS: [(&str, &str, &str); 7] = [
    ("/page/style.css", CSS, include_str!("page/style.css")),
    ("/page/main.js", SCRIPT, include_str!("page/main.js")),
    ("/page/view.js", SCRIPT, include_str!("page/view.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/model.js", SCRIPT, include_str!("page/model.js")),
    ("/page/history.js", SCRIPT, include_str!("page/history.js")),
    ("/page/text.js", SCRIPT, include_str!("page/text.js")),
];

/// The page, and its parts.
pub fn routes() -> impl Iterator<Item = Route> {
    let index = Page::part(HTML, include_str!("page/index.html"));
    let index = Route::fixed(("/", "a live map of services and instances, for a browser"), index);
    let parts = PARTS
        .map(|(path, content_type, text)| Route::fixed((path, ""), Page::part(content_type, text)));
    [index].into_iter().chain(parts)
}
