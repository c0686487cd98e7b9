//! `iris user`: accounts of a server that does not run, above all its first administrator.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use iris_actors::dispatch::check_account;
use iris_auth::{OneTimeSecret, PASSWORD_BYTES_MAX, Passwords};
use iris_protocol::{Operation, User};
use iris_store::root::{CreateUser, RecordAudit};
use iris_store::{StoreError, WriteContext};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::data::{DataDir, Root, new_user_id, now};
use super::output::{Manner, Output};
use super::{MaintenanceError, UserCreation};

/// In place of a file: standard input.
const STANDARD_INPUT: &str = "-";

pub(super) fn run(creation: &UserCreation) -> Result<(), MaintenanceError> {
    let place = &creation.place;
    let data = DataDir::find(place)?;
    let _lock = data.lock()?;
    let given = creation.password_file.as_deref().map(read_password).transpose()?;
    let is_given = given.is_some();
    let password = given.map_or_else(random_password, Ok)?;
    let root = Root::open(&data)?;
    let user = create(&root, creation, &password)?;
    root.close();
    tell(&user, (!is_given).then_some(password.as_str()), place.manner)
}

fn create(root: &Root, creation: &UserCreation, password: &str) -> Result<User, MaintenanceError> {
    let email = creation.email.trim().to_lowercase();
    let refused = MaintenanceError::Refused;
    check_account(&email, &creation.username).map_err(|error| refused(error.message))?;
    let hash = Passwords::for_this_machine();
    let hash = root.wait(hash.hash(password.to_owned(), &[&email, &creation.username]));
    let command = CreateUser {
        id: new_user_id(),
        email,
        username: creation.username.clone(),
        password_hash: Some(hash.map_err(|error| refused(error.to_string()))?),
        is_admin: creation.admin,
        only_if_no_admin: false,
        at: now(),
    };
    // By nobody who is known: whoever may write to the data directory.
    let audit = RecordAudit {
        at: command.at,
        action: Operation::UserCreate.name().to_owned(),
        target: command.id.to_string(),
        details: json!({ "isAdmin": creation.admin, "commandLine": true }),
        ..RecordAudit::default()
    };
    let context = WriteContext { audit: Some(Box::new(audit)), ..WriteContext::default() };
    root.try_write(command, context).map_err(|error| {
        if let StoreError::Conflict { message, .. } = error {
            return refused(message);
        }
        root.failed()(error)
    })
}

/// The first line, without its end.
pub(super) fn read_password(path: &Path) -> Result<Zeroizing<String>, MaintenanceError> {
    let failed = |source| MaintenanceError::Io { path: path.to_owned(), source };
    // One byte more than there may be, and the end of the line.
    let most = PASSWORD_BYTES_MAX as u64 + 3;
    let mut line = Zeroizing::new(String::with_capacity(PASSWORD_BYTES_MAX + 3));
    let read = if path == Path::new(STANDARD_INPUT) {
        io::stdin().lock().take(most).read_line(&mut line)
    } else {
        let file = File::open(path).map_err(failed)?;
        BufReader::new(file.take(most)).read_line(&mut line)
    };
    read.map_err(failed)?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

fn random_password() -> Result<Zeroizing<String>, MaintenanceError> {
    let secret = OneTimeSecret::random();
    let secret = secret.map_err(|error| MaintenanceError::Refused(error.to_string()))?;
    Ok(Zeroizing::new(secret.as_str().to_owned()))
}

/// `password` is one that was made, which nobody knows yet.
fn tell(user: &User, password: Option<&str>, manner: Manner) -> Result<(), MaintenanceError> {
    let mut output = Output::new(manner);
    let what = if user.is_admin { "administrator" } else { "user" };
    let mut text = format!("created {what} {} {} {}", user.id, user.username, user.email);
    let mut value = Map::new();
    value.insert("status".to_owned(), json!("ok"));
    value.insert("user".to_owned(), json!(user));
    if let Some(password) = password {
        text = format!("{text} with the password {password}");
        value.insert("password".to_owned(), json!(password));
    }
    output.done(&text, &Value::Object(value))?;
    output.end()
}
