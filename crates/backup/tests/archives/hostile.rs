//! Archives that somebody made to do harm.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use iris_backup::{ArchivedPath, BackupError, Bounds, Manifest, MemberFile, unpack, verify};
use tar::{EntryType, Header};

use crate::fixture::{Fixture, tree};

/// One entry of a tar: its kind, path and content.
type Item = (EntryType, Vec<u8>, Vec<u8>);

/// An archive in pieces, to be put together with something wrong in it.
struct Forge {
    fixture: Fixture,
    manifest: Manifest,
    items: Vec<Item>,
}

impl Forge {
    fn new() -> Self {
        let fixture = Fixture::new();
        let manifest = fixture.archive("good.tar.zst").unwrap().manifest;
        let file = fs::File::open(fixture.archived("good.tar.zst")).unwrap();
        let mut tar = tar::Archive::new(zstd::Decoder::new(file).unwrap());
        let items = tar.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            (EntryType::Regular, entry.path_bytes().into_owned(), content)
        });
        let items = items.collect();
        Self { fixture, manifest, items }
    }

    fn out(&self) -> PathBuf {
        self.fixture.path("out")
    }

    /// Writes the archive with the manifest as it is now.
    fn forge(&mut self) -> PathBuf {
        self.items[0].2 = serde_json::to_vec(&self.manifest).unwrap();
        self.forge_items()
    }

    fn forge_items(&self) -> PathBuf {
        let path = self.fixture.archived("forged.tar.zst");
        let mut encoder = zstd::Encoder::new(fs::File::create(&path).unwrap(), 1).unwrap();
        for (kind, name, content) in &self.items {
            write_item(&mut encoder, *kind, name, content, content.len() as u64);
        }
        encoder.write_all(&[0; 1024]).unwrap();
        encoder.finish().unwrap();
        path
    }

    /// The reason for which the archive is refused, by everything that reads it.
    fn refusal(&self, archive: &Path) -> String {
        let before = tree(&self.fixture.path(""));
        let unpacked = unpack(archive, &self.out(), Bounds::default());
        assert_eq!(tree(&self.fixture.path("")), before, "something is left");
        let (verified, unpacked) = (verify(archive).unwrap_err(), unpacked.unwrap_err());
        assert_eq!(verified.to_string(), unpacked.to_string());
        assert_eq!(verified.reason(), Some("archive_corrupt"), "{verified:?}");
        verified.to_string()
    }

    fn forged_refusal(&mut self) -> String {
        let archive = self.forge();
        self.refusal(&archive)
    }
}

fn write_item(to: &mut impl Write, kind: EntryType, name: &[u8], content: &[u8], size: u64) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    // Past the checks of the crate.
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
    if kind == EntryType::Symlink {
        header.set_link_name_literal("/etc").unwrap();
    }
    header.set_cksum();
    to.write_all(header.as_bytes()).unwrap();
    to.write_all(content).unwrap();
    to.write_all(&vec![0; content.len().next_multiple_of(512) - content.len()]).unwrap();
}

#[test]
fn the_pieces_put_together_unchanged_are_believed() {
    let mut forge = Forge::new();
    let archive = forge.forge();
    assert_eq!(verify(&archive).unwrap().manifest, forge.manifest);
    unpack(&archive, &forge.out(), Bounds::default()).unwrap();
}

#[test]
fn an_entry_too_many_too_few_twice_or_in_another_order_is_refused() {
    let extra = (EntryType::Regular, b"files/extra".to_vec(), b"x".to_vec());
    let mut forge = Forge::new();
    forge.items.push(extra.clone());
    assert!(forge.forged_refusal().contains("`files/extra` is not in the manifest"));

    let mut forge = Forge::new();
    forge.items.insert(2, extra);
    assert!(forge.forged_refusal().contains("`files/extra` in place of"));

    let mut forge = Forge::new();
    forge.items.pop();
    assert!(forge.forged_refusal().contains("is missing"));

    let mut forge = Forge::new();
    forge.items.swap(2, 3);
    assert!(forge.forged_refusal().contains("in place of"));

    let mut forge = Forge::new();
    let twice = forge.items[2].clone();
    forge.items.push(twice);
    assert!(forge.forged_refusal().contains("is not in the manifest"));

    let mut forge = Forge::new();
    let twice = forge.manifest.entries[1].clone();
    forge.manifest.entries.push(twice);
    assert!(forge.forged_refusal().contains("the path `files/readme.md`"));

    let mut forge = Forge::new();
    forge.items.remove(0);
    let archive = forge.forge_items();
    assert!(forge.refusal(&archive).contains("does not begin with its manifest"));
}

#[test]
fn a_content_that_is_not_that_of_the_hash_is_refused() {
    let mut forge = Forge::new();
    forge.items[2].2[0] ^= 1;
    assert!(forge.forged_refusal().contains("not what its hash says"));

    let mut forge = Forge::new();
    forge.items[2].2.push(b'x');
    assert!(forge.forged_refusal().contains("not as long as it should be"));

    let mut forge = Forge::new();
    let zeros = "0".repeat(64);
    forge.manifest.entries[0].sha256 = zeros;
    assert!(forge.forged_refusal().contains("not what its hash says"));
}

#[test]
fn a_path_that_leads_out_is_refused_wherever_it_stands() {
    for path in ["../x", "files/../../x", "/etc/x", "files//x", "files/./x", "project.db/x", "x"] {
        // In the tar alone.
        let mut forge = Forge::new();
        path.as_bytes().clone_into(&mut forge.items[2].1);
        assert!(forge.forged_refusal().contains("in place of"), "{path}");
        // In the manifest too: as text, because the type cannot hold most of them.
        let mut forge = Forge::new();
        path.as_bytes().clone_into(&mut forge.items[2].1);
        let json = serde_json::to_string(&forge.manifest).unwrap();
        forge.items[0].2 = json.replace("files/readme.md", path).into_bytes();
        let archive = forge.forge_items();
        let refusal = forge.refusal(&archive);
        assert!(refusal.contains("the path") || refusal.contains("cannot be read"), "{refusal}");
    }
}

#[test]
fn a_file_that_is_a_directory_too_or_lies_in_none_is_refused() {
    let mut forge = Forge::new();
    forge.manifest.entries[1].path = ArchivedPath::new(b"files/src").unwrap();
    assert!(forge.forged_refusal().contains("the path `files/src`"));
    let mut forge = Forge::new();
    forge.manifest.entries[1].path = ArchivedPath::new(b"files/gone/a").unwrap();
    assert!(forge.forged_refusal().contains("the path `files/gone/a`"));
    let mut forge = Forge::new();
    forge.manifest.directories.swap_remove(0);
    forge.manifest.directories.clear();
    assert!(forge.forged_refusal().contains("the path `files/src/empty`"));
}

#[test]
fn links_devices_and_extensions_are_refused() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Directory,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::GNULongLink,
        EntryType::GNUSparse,
        EntryType::Continuous,
    ] {
        let mut forge = Forge::new();
        forge.items[2].0 = kind;
        assert!(forge.forged_refusal().contains("no regular file"), "{kind:?}");
    }
}

#[test]
fn a_name_or_a_manifest_without_end_is_not_read_into_memory() {
    let fixture = Fixture::new();
    let archive = fixture.archived("bomb.tar.zst");
    let bomb = |kind, name: &[u8]| {
        let mut encoder = zstd::Encoder::new(fs::File::create(&archive).unwrap(), 1).unwrap();
        write_item(&mut encoder, kind, name, b"", 1 << 40);
        encoder.finish().unwrap();
        verify(&archive).unwrap_err()
    };
    let refused = bomb(EntryType::GNULongName, b"././@LongLink");
    assert!(matches!(refused, BackupError::Corrupt { .. }), "{refused:?}");
    let refused = bomb(EntryType::Regular, b"manifest.json");
    assert!(matches!(refused, BackupError::TooLarge { .. }), "{refused:?}");
}

#[test]
fn a_bomb_is_refused_by_what_it_says_and_cannot_say_less() {
    let mut forge = Forge::new();
    // 64 MiB of zeros are a few KiB in the archive.
    let zeros = vec![0; 64 << 20];
    let bounds = Bounds { bytes_max: 1 << 20, ..Bounds::default() };
    forge.items[2].2 = zeros;
    forge.manifest.entries[1].size = 64 << 20;
    let archive = forge.forge();
    assert!(fs::metadata(&archive).unwrap().len() < 1 << 20);
    let refused = unpack(&archive, &forge.out(), bounds).unwrap_err();
    assert_eq!(refused.reason(), Some("archive_too_large"));
    assert!(!forge.out().exists());

    forge.manifest.entries[1].size = 10;
    let archive = forge.forge();
    let refused = unpack(&archive, &forge.out(), bounds).unwrap_err();
    assert!(refused.to_string().contains("not as long as it should be"), "{refused}");
}

#[test]
fn a_manifest_of_a_newer_format_another_format_or_no_json_is_refused() {
    let mut forge = Forge::new();
    forge.manifest.format_version = 2;
    let archive = forge.forge();
    let refused = verify(&archive).unwrap_err();
    assert_eq!(
        (refused.code().as_str(), refused.reason()),
        ("INVALID_REQUEST", Some("archive_newer"))
    );

    // A newer one may have a manifest that this server cannot read at all.
    forge.items[0].2 = br#"{"format":"iris-project","formatVersion":9}"#.to_vec();
    let archive = forge.forge_items();
    assert_eq!(verify(&archive).unwrap_err().reason(), Some("archive_newer"));

    for json in [&br#"{"format":"other","formatVersion":1}"#[..], b"{", b"", b"\xff"] {
        forge.items[0].2 = json.to_vec();
        let archive = forge.forge_items();
        forge.refusal(&archive);
    }
}

#[test]
fn a_database_that_is_not_the_one_of_the_manifest_is_refused() {
    let mut forge = Forge::new();
    forge.manifest.project_id = iris_protocol::ProjectId::from_bits(99);
    assert!(forge.forged_refusal().contains("the database of"));
    let mut forge = Forge::new();
    forge.manifest.seq += 1;
    assert!(forge.forged_refusal().contains("not the one of the manifest"));

    let mut forge = Forge::new();
    let newer = forge.fixture.path("newer.db");
    fs::write(&newer, &forge.items[1].2).unwrap();
    let conn = rusqlite::Connection::open(&newer).unwrap();
    conn.pragma_update(None, "user_version", 999).unwrap();
    drop(conn);
    replace_database(&mut forge, &newer);
    let archive = forge.forge();
    assert_eq!(verify(&archive).unwrap_err().reason(), Some("archive_newer"));

    // Whole by its hash, and no database.
    let mut forge = Forge::new();
    let other = forge.fixture.path("other.db");
    fs::write(&other, "hello").unwrap();
    replace_database(&mut forge, &other);
    forge.forged_refusal();
}

/// Puts a file in the place of the database, with its size and hash in the manifest.
fn replace_database(forge: &mut Forge, with: &Path) {
    use std::fmt::Write;

    use sha2::Digest;

    let bytes = fs::read(with).unwrap();
    let hash = sha2::Sha256::digest(&bytes);
    let mut sha256 = String::new();
    for byte in hash {
        write!(sha256, "{byte:02x}").unwrap();
    }
    let entry = &mut forge.manifest.entries[0];
    *entry = MemberFile { size: bytes.len() as u64, sha256, ..entry.clone() };
    forge.items[1].2 = bytes;
}
