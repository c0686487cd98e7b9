//! What the fuzz targets check; tests run the same functions over mutations of the corpus.

use iris_shell::{COMMAND_BYTES_MAX, Piece, read};

/// Reading any bytes ends, twice with the same result, and with something to judge.
pub(crate) fn reads(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let reading = read(&text);
    assert!(!reading.pieces.is_empty(), "nothing to judge in {text:?}");
    assert_eq!(reading, read(&text), "{text:?} is read in two ways");
    for piece in &reading.pieces {
        if let Piece::Command { words, .. } = piece {
            assert!(words.first().is_some_and(|name| !name.is_empty()), "{text:?}");
        }
    }
}

/// The shown text of every command is read as that command again.
pub(crate) fn shows(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for piece in read(&text).pieces {
        let Piece::Command { text: shown, .. } = &piece else { continue };
        if shown.len() <= COMMAND_BYTES_MAX {
            let again = read(shown);
            assert!(again.pieces.contains(&piece), "{text:?} shows {shown:?}: {again:?}");
        }
    }
}
