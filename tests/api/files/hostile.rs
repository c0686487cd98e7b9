//! Paths in URLs and forms that try to leave the project (W2, H11 of the threat model): each is refused, and nothing
//! outside is read or written.

use std::collections::BTreeMap;
use std::path::Path;

use iris_client::RestAnswer;
use iris_protocol::{ErrorCode, ProjectId};
use iris_testkit::{Person, TestApp, patiently};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::browsing::{TYPES, scene_of};
use super::uploads::{file, form, send};
use crate::{code_of, rest_refusal};

const SECRET: &str = "kept outside of the project";

/// What a path is written like, and the reason with which it is refused.
const PATHS: &[(&str, &str)] = &[
    ("%2e%2e/outside.txt", "invalid_path"),
    ("%2e%2e%2foutside.txt", "invalid_path"),
    ("..%2Foutside.txt", "invalid_path"),
    ("a%2f%2e%2e%2f%2e%2e%2foutside.txt", "invalid_path"),
    ("%2Fetc%2Fpasswd", "invalid_path"),
    ("..%5coutside.txt", "invalid_path"),
    ("%2e%2e%5Coutside.txt", "invalid_path"),
    ("a%5c..%5c..%5coutside.txt", "invalid_path"),
    ("%00", "invalid_path"),
    ("kept.txt%00", "invalid_path"),
    ("..%00/outside.txt", "invalid_path"),
    // A dot that is written longer than it may be, in two, three and four bytes.
    ("%c0%ae%c0%ae/outside.txt", "invalid_encoding"),
    ("%e0%80%ae%e0%80%ae/outside.txt", "invalid_encoding"),
    ("%f0%80%80%ae%f0%80%80%ae/outside.txt", "invalid_encoding"),
    // Half a surrogate pair, half a character, no character.
    ("%ed%a0%80", "invalid_encoding"),
    ("%e4%bd", "invalid_encoding"),
    ("%ff%fe", "invalid_encoding"),
    ("%", "invalid_encoding"),
    ("kept.txt%", "invalid_encoding"),
    ("%2", "invalid_encoding"),
    ("%zz", "invalid_encoding"),
    ("%2g%2g", "invalid_encoding"),
    ("%u002e%u002e/outside.txt", "invalid_encoding"),
];

/// Paths that are too long: 4,097 bytes, 65 names, and more than a URL may have.
fn too_long() -> Vec<(String, &'static str)> {
    vec![
        ("a/".repeat(65), "invalid_path"),
        ("%61".repeat(1_500) + &"b".repeat(2_597), "invalid_path"),
        ("c".repeat(9 * 1024), "url_too_long"),
    ]
}

/// Every file below a directory but for databases, with what it holds.
fn files_below(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if !name.contains(".db") && name != "jwt.key" {
            found.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// Sends a request as it is written: no client gets to make it harmless.
async fn written(app: &TestApp, person: &Person, method: &str, path: &str) -> (u16, String) {
    let host = app.url.strip_prefix("http://").unwrap();
    let (token, body) = (person.token(), if method == "PUT" { "x" } else { "" });
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The end may be that of a connection that was aborted.
    patiently(path, stream.read_to_end(&mut answer)).await.ok();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{method} {path}: {answer}")), answer)
}

/// The routes that name a file in their query.
fn routes(project: &ProjectId) -> [(&'static str, String); 10] {
    let route = |method, place: &str| (method, format!("/v1/projects/{project}/files{place}"));
    [
        route("GET", "/content?path="),
        route("HEAD", "/content?path="),
        route("GET", "/content?version=1&path="),
        route("PUT", "/content?path="),
        route("GET", "/stat?path="),
        route("GET", "?path="),
        route("DELETE", "?path="),
        route("GET", "/versions?path="),
        route("GET", "/diff?path="),
        route("GET", "/search?query=outside&path="),
    ]
}

#[tokio::test]
async fn h11_a_path_in_a_url_that_leads_out_or_cannot_be_read_is_refused_on_every_route_of_files() {
    for r#type in TYPES {
        let (app, ann, project, _) = scene_of(r#type).await;
        ann.client.file_put(&project, "kept.txt", "kept").await.unwrap();
        // Where each of the ways up would lead.
        let projects = app.data_dir().join("projects");
        for place in [app.data_dir(), &projects, &projects.join(project.as_str())] {
            std::fs::write(place.join("outside.txt"), SECRET).unwrap();
        }
        let before = files_below(app.data_dir());
        let (written_as, long) =
            (PATHS.iter().map(|(path, reason)| ((*path).to_owned(), *reason)), too_long());
        for (path, reason) in written_as.chain(long) {
            for (method, route) in routes(&project) {
                let (status, answer) = written(&app, &ann, method, &format!("{route}{path}")).await;
                let what = format!("{method} {route}{path}");
                assert_eq!(status, 400, "{what}: {answer}");
                assert!(!answer.contains(SECRET), "{what}: {answer}");
                let says = format!("\"reason\":\"{reason}\"");
                assert!(method == "HEAD" || answer.contains(&says), "{what}: {answer}");
            }
        }
        assert_eq!(files_below(app.data_dir()), before);
        assert_eq!(ann.client.file_get(&project, "kept.txt").await.unwrap(), "kept");
    }
}

#[tokio::test]
async fn a_path_of_a_route_that_is_written_strangely_leads_to_no_other_route() {
    let (app, ann, project, _) = scene_of(TYPES[0]).await;
    ann.client.file_put(&project, "kept.txt", "kept").await.unwrap();
    let bare = format!("/v1/projects/{project}");
    for (path, status) in [
        (format!("{bare}/files/../files/content?path=kept.txt"), 404),
        (format!("{bare}/files/%2e%2e/files/content?path=kept.txt"), 404),
        (format!("{bare}%2ffiles%2fcontent?path=kept.txt"), 404),
        (format!("{bare}%00/files/content?path=kept.txt"), 404),
        (format!("{bare}..%5c/files/content?path=kept.txt"), 404),
        (format!("{bare}%ff/files/content?path=kept.txt"), 400),
        (format!("{bare}%c0%ae/files/content?path=kept.txt"), 400),
        ("/v1/projects/%2e%2e/files/content?path=kept.txt".to_owned(), 404),
        ("/v1/projects/%zz/files/content?path=kept.txt".to_owned(), 400),
    ] {
        let (found, answer) = written(&app, &ann, "GET", &path).await;
        assert_eq!(found, status, "{path}: {answer}");
    }
}

#[tokio::test]
async fn h15_a_file_of_a_form_goes_nowhere_outside_however_it_is_called() {
    for r#type in TYPES {
        let (app, ann, project, _) = scene_of(r#type).await;
        let before = files_below(app.data_dir());
        let refused = |answer: RestAnswer| {
            let error = rest_refusal(&answer);
            assert_eq!(error.code, ErrorCode::InvalidRequest);
            code_of(&error).1.to_owned()
        };
        for path in
            ["../x", r"..\\x", r"a\\..\\..\\x", "a\0b", "/etc/x", "a/../../x", &"n/".repeat(65)]
        {
            let sent = send(&ann, &project, None, form(&[file(path, b"x")])).await;
            let reason = refused(sent);
            // Some are no value of a header either.
            assert!(["invalid_path", "invalid_form"].contains(&&*reason), "{path:?}: {reason}");
        }
        assert_eq!(files_below(app.data_dir()), before);
        // In a form `%` is a character: this one is called so, inside.
        let sent = send(&ann, &project, None, form(&[file("%2e%2e%2fx", b"x")])).await;
        assert_eq!(sent.status, 200, "{sent:?}");
        let list = ann.get(&format!("/v1/projects/{project}/files")).await;
        assert_eq!(list.json["data"][0]["path"], "%2e%2e%2fx", "{list:?}");
    }
}
