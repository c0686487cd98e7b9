//! A browser, as far as logins see one: it keeps cookies and says where it is sent.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::patiently;

/// Most redirects that it follows.
const REDIRECTS_MAX: usize = 10;

/// Somebody's browser.
#[derive(Debug, Default, Clone)]
pub struct Browser {
    /// By host with port, then by name.
    cookies: BTreeMap<String, BTreeMap<String, String>>,
}

/// What a browser was answered.
#[derive(Debug, Clone)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// Where it is sent.
    pub location: Option<String>,
    /// The cookies that it was given, as they came.
    pub cookies: Vec<String>,
    /// The body.
    pub text: String,
    /// The body, if it is JSON.
    pub json: Value,
}

/// What goes wrong here is the test's failure.
impl Browser {
    /// Has a cookie for a place such as `http://127.0.0.1:4747`.
    #[must_use]
    pub fn with_cookie(mut self, origin: &str, name: &str, value: &str) -> Self {
        let (host, _) = split(origin);
        self.cookies.entry(host).or_default().insert(name.to_owned(), value.to_owned());
        self
    }

    /// Opens a page, and goes nowhere from there.
    pub async fn open(&mut self, url: &str) -> Page {
        let (host, path) = split(url);
        let cookies = self.cookies.entry(host.clone()).or_default();
        let pairs: Vec<String> = cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let cookie = if pairs.is_empty() {
            String::new()
        } else {
            format!("cookie: {}\r\n", pairs.join("; "))
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: a browser\r\n{cookie}connection: close\r\n\r\n"
        );
        let mut bytes = Vec::new();
        patiently("a page", async {
            let mut stream = TcpStream::connect(&host).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.read_to_end(&mut bytes).await.unwrap();
        })
        .await;
        let page = read(&bytes);
        for cookie in &page.cookies {
            let (pair, bounds) = cookie.split_once(';').unwrap_or((cookie, ""));
            let (name, value) = pair.split_once('=').unwrap();
            let is_gone = bounds.contains("Max-Age=0") || bounds.contains("01 Jan 1970");
            if is_gone {
                cookies.remove(name);
            } else {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        page
    }

    /// Opens a page and goes where it is sent, until there is a page, or it is sent to a place that begins
    /// with `until`: then that is the answer.
    pub async fn go(&mut self, url: &str, until: &str) -> (String, Page) {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS_MAX {
            let page = self.open(&url).await;
            let Some(location) = &page.location else { return (url, page) };
            let (host, _) = split(&url);
            let next = if location.starts_with('/') {
                format!("http://{host}{location}")
            } else {
                location.clone()
            };
            if next.starts_with(until) {
                return (next, page);
            }
            url = next;
        }
        panic!("sent on too often, to {url}");
    }
}

/// Host with port, and path with query.
fn split(url: &str) -> (String, String) {
    let behind = url.strip_prefix("http://").unwrap_or_else(|| panic!("no place to go: {url}"));
    let behind = behind.split('#').next().unwrap();
    let end = behind.find(['/', '?']).unwrap_or(behind.len());
    let (host, path) = behind.split_at(end);
    let slash = if path.starts_with('/') { "" } else { "/" };
    (host.to_owned(), format!("{slash}{path}"))
}

fn read(bytes: &[u8]) -> Page {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let all = |wanted: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.to_owned()).collect::<Vec<String>>()
    };
    let json = serde_json::from_str(body).unwrap_or_default();
    let location = all("location").into_iter().next();
    Page { status, location, cookies: all("set-cookie"), text: body.to_owned(), json }
}
