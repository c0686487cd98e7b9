//! The configuration as operators write it: precedence, refusals, warnings, secrets.

use std::cell::Cell;

use iris_llm::{
    ApiKey, ChatSwitches, Effort, MaxTokensName, ProviderKind, Reasoning, ReasoningReplay,
};

use super::*;

/// Loads with a file at `/etc/iris.toml`, variables and flags; nothing else is read.
fn load_all(
    file: Option<&str>,
    variables: &[(&str, &str)],
    flags: Flags,
) -> Result<(Config, Vec<String>), ConfigError> {
    let config_variable = file.map(|_| ("IRIS_CONFIG", "/etc/iris.toml"));
    let environment = variables.iter().copied().chain(config_variable);
    Config::load(
        flags,
        environment.map(|(name, value)| (name.to_owned(), value.to_owned())),
        |path| {
            assert_eq!(path, Path::new("/etc/iris.toml"));
            Ok(file.unwrap().to_owned())
        },
    )
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    load_all(Some(text), &[], Flags::default()).map(|(config, _)| config)
}

fn from_env(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load_all(None, variables, Flags::default()).map(|(config, _)| config)
}

#[track_caller]
fn assert_refused(result: Result<Config, ConfigError>, sentence: &str) {
    let error = result.expect_err(sentence);
    assert_eq!(error.to_string(), sentence);
}

const LOCAL: [(&str, &str); 2] = [
    ("IRIS_PROVIDERS__LOCAL__KIND", "openai-compatible"),
    ("IRIS_PROVIDERS__LOCAL__BASE_URL", "http://127.0.0.1:8081/v1"),
];

#[test]
fn without_any_source_the_defaults_hold() {
    let (config, warnings) = load_all(None, &[("PATH", "/bin")], Flags::default()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.bind.to_string(), "127.0.0.1:4747");
    assert!(config.data_dir.ends_with("iris"), "{:?}", config.data_dir);
    assert_eq!(config.jwt_secret_file, config.data_dir.join("jwt.key"));
    assert_eq!(config.master_key_file, config.data_dir.join("master.key"));
    assert_eq!(config.master_key_previous_file, None);
    assert!(config.setup_token.is_none());
    assert_eq!(config.registration, Registration::Closed);
    assert_eq!(config.default_model, None);
    assert!(config.providers.is_empty());
    assert!(config.project_roots.is_empty());
    assert!(config.allowed_origins.is_empty());
    assert!(config.allowed_hosts.is_empty());
    assert_eq!(config.public_url, None);
    assert_eq!(config.tls, None);
    assert!(config.egress_allow.is_empty());
    assert_eq!(config.sandbox.map(|sandbox| sandbox.minimum), Some(Tier::S3));
    assert_eq!(config.drain, Duration::from_secs(30));
    assert_eq!(config.project_idle, Duration::from_mins(1));
    assert_eq!(config.projects_open_max, 512);
    assert_eq!(config.session_idle, Duration::from_mins(1));
    assert_eq!(config.events_kept, Some(Duration::from_hours(30 * 24)));
    assert_eq!(config.events_kept_bytes_max, 64 * 1024 * 1024);
    let quotas = Quotas {
        rows_max: 1_000_000,
        bytes_max: 4 * 1024 * 1024 * 1024,
        files_max: 100_000,
        file_bytes_max: 10 * 1024 * 1024 * 1024,
    };
    assert_eq!(config.quotas, quotas);
    let kept = Some(Duration::from_hours(2 * 365 * 24));
    assert_eq!(config.audit, AuditSettings { kept, records_max: 1_000_000 });
    assert_eq!(config.files_kept, FileRetention::default());
    assert_eq!(config.git, GitSettings::default());
    assert_eq!(config.resume, ResumePolicy::Manual);
    let backups =
        BackupSettings { interval: None, kept: 7, import_bytes_max: 4 * 1024 * 1024 * 1024 };
    assert_eq!(config.backups, backups);
    let sockets = SocketSettings {
        ping_interval: Some(Duration::from_secs(25)),
        pong_timeout: Duration::from_secs(10),
        frame_age_max: Duration::from_secs(10),
        abort_after: Duration::from_secs(2),
    };
    assert_eq!(config.sockets, sockets);
    assert_eq!(config.rates, RateSettings::default());
    assert_eq!(config.watchdog_abort, None);
    assert_eq!(config.log, "info");
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(config.otlp, None);
}

#[test]
#[expect(clippy::too_many_lines, reason = "each key has its line")]
fn each_key_of_the_file_is_read() {
    let config = from_file(
        r#"
        bind = "0.0.0.0:0"
        data_dir = "/srv/iris"
        setup_token = "let me in, please"
        registration = "open"
        jwt_secret_file = "/run/secrets/jwt"
        project_roots = ["/home/a,b", "/srv"]
        allowed_origins = ["https://app.example.com"]
        allowed_hosts = ["iris.example.com", "[::1]:4747"]
        public_url = "https://iris.example.com"
        tls_certificate_file = "/etc/iris/chain.pem"
        tls_key_file = "/etc/iris/key.pem"
        drain_seconds = 5
        project_idle_seconds = 90
        projects_open_max = 2
        session_idle_seconds = 30
        events_kept_days = 0
        events_kept_bytes_max = 1000
        audit_kept_days = 7
        audit_records_max = 0
        project_rows_max = 1
        project_bytes_max = 2
        project_files_max = 3
        project_file_bytes_max = 0
        file_versions_max = 3
        file_versions_kept_days = 2
        file_versions_bytes_max = 0
        snapshots_max = 1
        transfer_bytes_max = 2000
        git_time_seconds = 60
        git_stall_seconds = 5
        git_bytes_max = 1000
        resume = "auto"
        backup_interval_hours = 24
        backups_kept = 3
        import_bytes_max = 1000
        ping_interval_seconds = 0
        pong_timeout_seconds = 3
        frame_age_max_seconds = 5
        requests_per_second = 10
        requests_burst = 20
        public_requests_per_minute = 6
        key_requests_per_second = 0
        runs_per_minute = 20
        uploads_per_minute = 4
        login_failures_per_10_minutes = 5
        unknown_connections_per_address_max = 4
        trusted_proxies = ["10.0.0.9/8", "::1"]
        smtp_url = "smtps://user:secret@mail.example.com"
        smtp_from = "Iris <iris@example.com>"
        jwt_secret_previous_file = "/run/secrets/jwt-old"
        connections_per_user_max = 2
        refusals_per_minute_max = 0
        watchdog_abort_seconds = 15
        log = "iris=debug,warn"
        log_format = "json"
        otlp_endpoint = "http://127.0.0.1:4318/"
        otlp_service_name = "iris-1"
        "#,
    )
    .unwrap();
    assert_eq!(config.bind.to_string(), "0.0.0.0:0");
    assert_eq!(config.data_dir, Path::new("/srv/iris"));
    assert!(config.setup_token.unwrap().matches("let me in, please"));
    assert_eq!(config.registration, Registration::Open);
    assert_eq!(config.jwt_secret_file, Path::new("/run/secrets/jwt"));
    assert_eq!(config.jwt_secret_previous_file.as_deref(), Some(Path::new("/run/secrets/jwt-old")));
    let proxies: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "::1/128"]);
    let smtp = config.smtp.unwrap();
    assert_eq!(smtp.from, "Iris <iris@example.com>");
    assert!(!format!("{smtp:?}").contains("secret"), "{smtp:?}");
    assert_eq!(config.project_roots, [Path::new("/home/a,b"), Path::new("/srv")]);
    assert_eq!(config.allowed_origins, ["https://app.example.com"]);
    assert_eq!(config.allowed_hosts, ["iris.example.com", "[::1]:4747"]);
    assert_eq!(config.public_url.as_deref(), Some("https://iris.example.com"));
    let (certificate, key) = ("/etc/iris/chain.pem".into(), "/etc/iris/key.pem".into());
    assert_eq!(config.tls, Some(TlsFiles { certificate, key }));
    assert_eq!(config.drain, Duration::from_secs(5));
    assert_eq!(config.project_idle, Duration::from_secs(90));
    assert_eq!(config.projects_open_max, 2);
    assert_eq!(config.session_idle, Duration::from_secs(30));
    assert_eq!(config.events_kept, None);
    assert_eq!(config.events_kept_bytes_max, 1_000);
    let quotas = Quotas { rows_max: 1, bytes_max: 2, files_max: 3, file_bytes_max: 0 };
    assert_eq!(config.quotas, quotas);
    let kept = Some(Duration::from_hours(7 * 24));
    assert_eq!(config.audit, AuditSettings { kept, records_max: 0 });
    let age_ms = Some(2 * 24 * 60 * 60 * 1000);
    let kept = FileRetention { versions_max: 3, age_ms, bytes_max: 0, snapshots_max: 1 };
    assert_eq!(config.files_kept, kept);
    assert_eq!(config.transfer_bytes_max, 2_000);
    let (time, stall) = (Duration::from_mins(1), Duration::from_secs(5));
    assert_eq!(config.git, GitSettings { time, stall, bytes_max: 1_000 });
    assert_eq!(config.resume, ResumePolicy::Auto);
    let interval = Some(Duration::from_hours(24));
    assert_eq!(config.backups, BackupSettings { interval, kept: 3, import_bytes_max: 1000 });
    let sockets = SocketSettings {
        ping_interval: None,
        pong_timeout: Duration::from_secs(3),
        frame_age_max: Duration::from_secs(5),
        abort_after: Duration::from_secs(2),
    };
    assert_eq!(config.sockets, sockets);
    let rates = RateSettings {
        requests: Some(Rate { every: Duration::from_millis(100), burst: 20 }),
        public: Some(Rate { every: Duration::from_secs(10), burst: 3 }),
        keys: None,
        runs: Some(Rate { every: Duration::from_secs(3), burst: 10 }),
        uploads: Some(Rate { every: Duration::from_secs(15), burst: 2 }),
        login_failures: Some(Rate { every: Duration::from_mins(2), burst: 5 }),
        login_failures_of_address: Some(Rate { every: Duration::from_secs(12), burst: 50 }),
        unknown_connections_max: Some(4),
        connections_per_user_max: Some(2),
        refusals_per_minute_max: None,
    };
    assert_eq!(config.rates, rates);
    assert_eq!(config.watchdog_abort, Some(Duration::from_secs(15)));
    assert_eq!(config.log, "iris=debug,warn");
    assert_eq!(config.log_format, LogFormat::Json);
    let collector =
        Otlp { endpoint: "http://127.0.0.1:4318".to_owned(), service_name: "iris-1".to_owned() };
    assert_eq!(config.otlp, Some(collector));
}

#[test]
fn limits_of_clones_are_not_nothing() {
    for (file, problem) in [
        ("git_time_seconds = 0", "`0` is not a whole number of seconds"),
        ("git_stall_seconds = 'x'", "`x` is not a whole number of seconds"),
        ("git_bytes_max = 0", "`0` is not a number of bytes, at least 1"),
    ] {
        let error = from_file(file).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn each_key_of_a_provider_is_read() {
    let config = from_file(
        r#"
        default_model = "local/org/model"
        fallback_model = "demo/any"
        small_model = "demo/small"
        titles = false
        compact_at_percent = 60

        [providers.local]
        kind = "openai-compatible"
        base_url = "http://127.0.0.1:8081/v1"
        api_key = "sk-canary"
        images = true

        [providers.demo]
        kind = "scripted"
        script = "/srv/demo.json"
        "#,
    )
    .unwrap();
    let model = ModelRef { provider_id: "local".to_owned(), model_id: "org/model".to_owned() };
    assert_eq!(config.default_model, Some(model));
    let fallback = ModelRef { provider_id: "demo".to_owned(), model_id: "any".to_owned() };
    assert_eq!(config.fallback_model, Some(fallback));
    let small = ModelRef { provider_id: "demo".to_owned(), model_id: "small".to_owned() };
    let context = (config.context.small_model, config.context.titles);
    assert_eq!((context, config.context.compact_at_percent), ((Some(small), false), 60));
    let local = ProviderConfig {
        base_url: Some("http://127.0.0.1:8081/v1".to_owned()),
        api_key: Some(ApiKey::new("sk-canary")),
        images: Some(true),
        ..ProviderConfig::new(ProviderKind::OpenAiCompatible)
    };
    let demo = ProviderConfig {
        script: Some(PathBuf::from("/srv/demo.json")),
        ..ProviderConfig::new(ProviderKind::Scripted)
    };
    let expected = [("local".to_owned(), local), ("demo".to_owned(), demo)];
    assert_eq!(config.providers, BTreeMap::from(expected));
}

#[test]
fn the_environment_says_the_same_as_the_file() {
    let mut variables = vec![
        ("IRIS_BIND", "0.0.0.0:0"),
        ("IRIS_DATA_DIR", "/srv/iris"),
        ("IRIS_SETUP_TOKEN", "let me in, please"),
        ("IRIS_REGISTRATION", "open"),
        ("IRIS_JWT_SECRET_FILE", "/run/secrets/jwt"),
        ("IRIS_MASTER_KEY_FILE", "/run/secrets/master"),
        ("IRIS_MASTER_KEY_PREVIOUS_FILE", "/run/secrets/master.old"),
        ("IRIS_DEFAULT_MODEL", "local/m"),
        ("IRIS_PROJECT_ROOTS", "/home/a, /srv"),
        ("IRIS_ALLOWED_ORIGINS", "https://a.example,http://localhost:3000,null"),
        ("IRIS_ALLOWED_HOSTS", ""),
        ("IRIS_DRAIN_SECONDS", "0"),
        ("IRIS_LOG", "debug"),
        ("IRIS_LOG_FORMAT", "json"),
        ("IRIS_OTLP_ENDPOINT", "https://collector.example/otlp"),
        ("IRIS_PROVIDERS__LOCAL__API_KEY", "sk-canary"),
        ("IRIS_PROVIDERS__LOCAL__SCRIPT", "/unused"),
    ];
    variables.extend(LOCAL);
    let (config, warnings) = load_all(None, &variables, Flags::default()).unwrap();
    assert_eq!(config.bind.to_string(), "0.0.0.0:0");
    assert!(config.setup_token.unwrap().matches("let me in, please"));
    assert_eq!(config.project_roots, [Path::new("/home/a"), Path::new("/srv")]);
    assert_eq!(config.allowed_origins, ["https://a.example", "http://localhost:3000", "null"]);
    assert!(config.allowed_hosts.is_empty());
    assert_eq!(config.drain, Duration::ZERO);
    let collector = Otlp {
        endpoint: "https://collector.example/otlp".to_owned(),
        service_name: "iris".to_owned(),
    };
    assert_eq!(config.otlp, Some(collector));
    let local = config.providers.get("local").unwrap();
    assert_eq!(local.api_key, Some(ApiKey::new("sk-canary")));
    let unused = "`providers.local.script` has no effect: its kind is `openai-compatible`";
    assert_eq!(warnings, [unused]);
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let file = "bind = '127.0.0.1:1'\nlog = 'error'\ndata_dir = '/file'\nlog_format = 'json'";
    let variables = [("IRIS_BIND", "127.0.0.1:2"), ("IRIS_LOG", "warn")];
    let flags = Flags { bind: Some("127.0.0.1:3".to_owned()), ..Flags::default() };
    let (config, _) = load_all(Some(file), &variables, flags).unwrap();
    assert_eq!(config.bind.port(), 3);
    assert_eq!(config.log, "warn");
    assert_eq!(config.data_dir, Path::new("/file"));
    assert_eq!(config.log_format, LogFormat::Json);

    let flags = Flags {
        config: None,
        data_dir: Some("/flag".to_owned()),
        bind: None,
        log: Some("trace".to_owned()),
        log_format: Some("text".to_owned()),
    };
    let (config, _) = load_all(Some(file), &variables, flags).unwrap();
    assert_eq!(config.bind.port(), 2);
    assert_eq!(config.log, "trace");
    assert_eq!(config.data_dir, Path::new("/flag"));
    assert_eq!(config.log_format, LogFormat::Text);
}

#[test]
fn a_provider_may_be_described_by_file_and_environment_together() {
    let file = "[providers.local]\nkind = 'openai-compatible'\nbase_url = 'http://a/v1'";
    let variables =
        [("IRIS_PROVIDERS__LOCAL__API_KEY", "one"), ("IRIS_PROVIDERS__Other__KIND", "scripted")];
    let (config, _) = load_all(Some(file), &variables, Flags::default()).unwrap();
    assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["local", "other"]);
    let local = config.providers.get("local").unwrap();
    assert_eq!(local.base_url.as_deref(), Some("http://a/v1"));
    assert_eq!(local.api_key, Some(ApiKey::new("one")));
}

#[test]
fn the_file_of_the_flag_wins_over_that_of_the_environment() {
    let seen = Cell::new(None);
    let environment = [("IRIS_CONFIG".to_owned(), "/env.toml".to_owned())];
    let flags = Flags { config: Some("/flag.toml".to_owned()), ..Flags::default() };
    let (_, warnings) = Config::load(flags, environment.into_iter(), |path| {
        seen.set(Some(path.to_owned()));
        Ok(String::new())
    })
    .unwrap();
    assert_eq!(seen.take(), Some(PathBuf::from("/flag.toml")));
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let flags = Flags { config: Some("/missing.toml".to_owned()), ..Flags::default() };
    let result = Config::load(flags, std::iter::empty(), |_| Err(io::ErrorKind::NotFound.into()));
    let sentence = "cannot read the configuration file `/missing.toml`";
    assert_refused(result.map(|(config, _)| config), sentence);
}

#[test]
fn each_bad_variable_is_named_with_its_value() {
    for (variable, value, problem) in [
        ("BIND", "localhost:4747", "not an address with a port like `127.0.0.1:4747`"),
        ("BIND", "127.0.0.1", "not an address with a port like `127.0.0.1:4747`"),
        ("BIND", "127.0.0.1:65536", "not an address with a port like `127.0.0.1:4747`"),
        ("DATA_DIR", "", "not a path"),
        ("REGISTRATION", "maybe", "not `open`, `invite` or `closed`"),
        ("RESUME", "always", "not `manual` or `auto`"),
        ("JWT_SECRET_FILE", "", "not a path"),
        ("MASTER_KEY_FILE", "", "not a path"),
        ("MASTER_KEY_PREVIOUS_FILE", "", "not a path"),
        ("DEFAULT_MODEL", "gpt", "not of the form `provider/model`"),
        ("DEFAULT_MODEL", "local/", "not of the form `provider/model`"),
        ("PROJECT_ROOTS", "home", "not an absolute path"),
        ("ALLOWED_ORIGINS", "*", "not an origin like `https://app.example.com`"),
        ("ALLOWED_ORIGINS", "https://a/", "not an origin like `https://app.example.com`"),
        ("PUBLIC_URL", "null", "not an origin like `https://app.example.com`"),
        ("ALLOWED_ORIGINS", "ftp://a", "not an origin like `https://app.example.com`"),
        ("DRAIN_SECONDS", "-1", "not a whole number of seconds up to 3600"),
        ("DRAIN_SECONDS", "3601", "not a whole number of seconds up to 3600"),
        ("DRAIN_SECONDS", "1.5", "not a whole number of seconds up to 3600"),
        ("LOG", "", "not a log filter like `info` or `iris=debug,warn`"),
        ("OTLP_ENDPOINT", "collector:4317", "not a URL like `https://api.example.com/v1`"),
        ("OTLP_SERVICE_NAME", " ", "not a name"),
        ("LOG_FORMAT", "xml", "not `text` or `json`"),
        ("PROVIDERS__LOCAL__IMAGES", "yes", "not `true` or `false`"),
        (
            "PROVIDERS__LOCAL__KIND",
            "psychic",
            "not `anthropic`, `google`, `ollama`, `openai`, `openai-compatible` or `scripted`",
        ),
        ("PROVIDERS__LOCAL__BASE_URL", "a/v1", "not a URL like `https://api.example.com/v1`"),
        ("PROVIDERS__LOCAL__BASE_URL", "ftp://a", "not a URL like `https://api.example.com/v1`"),
        ("PROVIDERS__LOCAL__BASE_URL", "http://a/?b", "not a URL without `?` and `#`"),
        ("PROVIDERS__LOCAL__SCRIPT", "", "not a path"),
    ] {
        let name = format!("IRIS_{variable}");
        let mut variables = LOCAL.to_vec();
        variables.push((&name, value));
        let sentence = format!("bad value of `{name}`: `{value}` is {problem}");
        assert_refused(from_env(&variables), &sentence);
    }
}

#[test]
fn a_bad_log_filter_is_named_with_what_is_wrong_in_it() {
    let error = from_env(&[("IRIS_LOG", "iris=loud")]).expect_err("a refusal").to_string();
    let beginning = "bad value of `IRIS_LOG`: `iris=loud` is not a log filter like `info` or \
                     `iris=debug,warn`: error parsing level filter";
    assert!(error.starts_with(beginning), "{error}");
}

#[test]
fn the_collector_has_no_secret_in_its_address_and_a_name_needs_it() {
    assert_refused(
        from_env(&[("IRIS_OTLP_ENDPOINT", "http://user:canary@collector:4318")]),
        "bad value of `IRIS_OTLP_ENDPOINT`: the URL must not hold a user or password; use the \
         variable `OTEL_EXPORTER_OTLP_HEADERS`",
    );
    let variables = [("IRIS_OTLP_SERVICE_NAME", "iris-1")];
    let (config, warnings) = load_all(None, &variables, Flags::default()).unwrap();
    assert_eq!(config.otlp, None);
    assert_eq!(warnings, ["`otlp_service_name` has no effect: there is no `otlp_endpoint`"]);
}

#[test]
fn a_bad_host_is_named_and_a_good_one_made_lower_case() {
    for host in ["http://a", "a/b", "*", "*.example.com", "a:b", "a:65536", "a b", "a@b", "a,,b"] {
        let error = from_env(&[("IRIS_ALLOWED_HOSTS", host)]).expect_err(host).to_string();
        assert!(error.starts_with("bad value of `IRIS_ALLOWED_HOSTS`: `"), "{error}");
    }
    let config = from_env(&[("IRIS_ALLOWED_HOSTS", "Iris.Example.com:80, 10.0.0.1")]).unwrap();
    assert_eq!(config.allowed_hosts, ["iris.example.com:80", "10.0.0.1"]);
}

#[test]
fn what_tools_may_fetch_is_a_list_and_a_bad_entry_is_named() {
    let file = from_file("egress_allow = ['127.0.0.1:3000', 'fd00::/8']").unwrap();
    let environment = from_env(&[("IRIS_EGRESS_ALLOW", "127.0.0.1:3000, fd00::/8")]).unwrap();
    for config in [file, environment] {
        let allowed: Vec<_> = config.egress_allow.iter().map(ToString::to_string).collect();
        assert_eq!(allowed, ["127.0.0.1:3000", "fd00::/8"]);
    }
    assert_refused(
        from_env(&[("IRIS_EGRESS_ALLOW", "10.0.0.0/8,docs.internal")]),
        "bad value of `IRIS_EGRESS_ALLOW`: `docs.internal` is not a network like `10.1.0.0/16`, an \
         address, or a host with a port",
    );
}

#[test]
fn a_bad_value_names_the_file_or_the_flag_it_came_from() {
    assert_refused(
        from_file("bind = 4747"),
        "bad value of `bind` in `/etc/iris.toml`, line 1: `4747` is not an address with a port like \
         `127.0.0.1:4747`",
    );
    assert_refused(
        from_file("[providers.x]\nkind = 'y'"),
        "bad value of `providers.x.kind` in `/etc/iris.toml`, line 2: `y` is not `anthropic`, `google`, `ollama`, \
         `openai`, `openai-compatible` or \
         `scripted`",
    );
    let flags = Flags { log_format: Some("xml".to_owned()), ..Flags::default() };
    assert_refused(
        load_all(None, &[], flags).map(|(config, _)| config),
        "bad value of `--log-format`: `xml` is not `text` or `json`",
    );
}

#[test]
fn values_of_the_wrong_shape_are_refused() {
    for (text, sentence) in [
        ("log = ['a']", "`log` in `/etc/iris.toml`, line 1: expected one value, not an array"),
        ("[bind]\nport = 1", "`bind` in `/etc/iris.toml`, line 1: expected a value, not a table"),
        (
            "project_roots = '/a'",
            "`project_roots` in `/etc/iris.toml`, line 1: expected an array of strings",
        ),
        (
            "allowed_hosts = [1]",
            "`allowed_hosts` in `/etc/iris.toml`, line 1: expected only strings in the array",
        ),
        ("providers = 'x'", "`providers` in `/etc/iris.toml`, line 1: expected a table"),
        (
            "[providers]\nlocal = 1",
            "`providers.local` in `/etc/iris.toml`, line 2: expected a table",
        ),
    ] {
        assert_refused(from_file(text), &format!("bad value of {sentence}"));
    }
}

#[test]
fn an_unknown_key_of_the_file_is_refused() {
    for (text, key, line, meant) in [
        ("colour = 'red'", "colour", 1, None),
        ("log = 'info'\n\nBIND = '127.0.0.1:1'", "BIND", 3, Some("bind")),
        ("drain-second = 3", "drain-second", 1, Some("drain_seconds")),
        ("config = 'x'", "config", 1, None),
        ("[server]\nbind = 'x'", "server", 1, None),
        ("'providers.a.kind' = 'scripted'", "providers.a.kind", 1, None),
        ("[providers.a]\nkind = 'scripted'\ncolour = 1", "providers.a.colour", 3, None),
        ("[providers.a]\nkind = 'scripted'\napikey = 1", "providers.a.apikey", 3, Some("api_key")),
    ] {
        let meant = meant.map_or_else(String::new, |key| format!("; did you mean `{key}`?"));
        let sentence = format!("unknown key `{key}` in `/etc/iris.toml`, line {line}{meant}");
        assert_refused(from_file(text), &sentence);
    }
}

#[test]
fn an_unknown_variable_of_ours_is_a_warning() {
    let variables = [
        ("IRIS_BINDD", "x"),
        ("IRIS_bind", "x"),
        ("IRIS_", "x"),
        ("IRIS_PROVIDERS__A", "x"),
        ("IRIS_PROVIDERS__A__COLOUR", "x"),
        ("OTHER_BIND", "x"),
    ];
    let (config, warnings) = load_all(None, &variables, Flags::default()).unwrap();
    assert!(config.providers.is_empty());
    let meant = "; did you mean `IRIS_BIND`?";
    let expected = [
        ("", ""),
        ("BINDD", meant),
        ("PROVIDERS__A", ""),
        ("PROVIDERS__A__COLOUR", ""),
        ("bind", meant),
    ]
    .map(|(name, meant)| format!("the environment variable `IRIS_{name}` means nothing{meant}"));
    assert_eq!(warnings, expected);
}

#[test]
fn the_master_key_and_the_one_before_it_have_files() {
    let config = from_file(
        "master_key_file = '/run/secrets/new'\nmaster_key_previous_file = '/run/secrets/old'",
    )
    .unwrap();
    assert_eq!(config.master_key_file, Path::new("/run/secrets/new"));
    assert_eq!(config.master_key_previous_file.as_deref(), Some(Path::new("/run/secrets/old")));
}

#[test]
fn mail_takes_a_server_and_a_sender_and_proxies_are_networks() {
    assert!(from_env(&[("IRIS_SMTP_URL", "smtp://mail.example")]).is_err());
    assert!(from_env(&[("IRIS_SMTP_FROM", "iris@example.com")]).is_err());
    let from = ("IRIS_SMTP_FROM", "iris@example.com");
    for url in ["", "http://mail.example", "nonsense"] {
        assert!(from_env(&[("IRIS_SMTP_URL", url), from]).is_err(), "{url}");
    }
    assert!(from_env(&[("IRIS_SMTP_URL", "smtp://mail.example"), from]).is_ok());
    assert!(from_env(&[("IRIS_TRUSTED_PROXIES", "10.0.0.0/99")]).is_err());
    assert_eq!(
        from_env(&[("IRIS_REGISTRATION", "invite")]).unwrap().registration,
        Registration::Invite
    );
}

#[test]
fn every_kind_of_provider_is_configured_and_only_one_needs_an_address() {
    for kind in ["anthropic", "openai", "google", "ollama", "scripted"] {
        let config = from_env(&[("IRIS_PROVIDERS__A__KIND", kind)]).unwrap();
        assert_eq!(config.providers["a"], ProviderConfig::new(kind.parse().unwrap()));
    }
    assert_refused(
        from_env(&[("IRIS_PROVIDERS__A__KIND", "gpt")]),
        "bad value of `IRIS_PROVIDERS__A__KIND`: `gpt` is not `anthropic`, `google`, `ollama`, \
         `openai`, `openai-compatible` or `scripted`",
    );
}

#[test]
fn what_providers_differ_in_is_read() {
    let mut variables = vec![
        ("IRIS_PROVIDERS__LOCAL__STREAM_OPTIONS", "false"),
        ("IRIS_PROVIDERS__LOCAL__PARALLEL_TOOL_CALLS", "true"),
        ("IRIS_PROVIDERS__LOCAL__MAX_TOKENS_NAME", "max_completion_tokens"),
        ("IRIS_PROVIDERS__LOCAL__REASONING_REPLAY", "reasoning_content"),
        ("IRIS_PROVIDERS__LOCAL__PROMPT_CACHE_KEY", "true"),
        ("IRIS_PROVIDERS__LOCAL__REASONING", "high"),
        ("IRIS_PROVIDERS__LOCAL__MAX_OUTPUT_TOKENS", "4096"),
        ("IRIS_PROVIDERS__LOCAL__PROXY", "http://ann:canary@proxy.example:3128"),
        ("IRIS_PROVIDERS__LOCAL__CA_FILE", "/etc/ca.pem"),
        ("IRIS_PROVIDERS__O__KIND", "ollama"),
        ("IRIS_PROVIDERS__O__CONTEXT_TOKENS", "32768"),
        ("IRIS_PROVIDERS__O__FIRST_BYTE_SECONDS", "900"),
        ("IRIS_PROVIDERS__O__IDLE_SECONDS", "60"),
        ("IRIS_PROVIDERS__O__REASONING", "off"),
    ];
    variables.extend(LOCAL);
    let (config, warnings) = load_all(None, &variables, Flags::default()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let local = ProviderConfig {
        base_url: Some("http://127.0.0.1:8081/v1".to_owned()),
        chat: ChatSwitches {
            stream_options: false,
            parallel_tool_calls: Some(true),
            max_tokens_name: MaxTokensName::MaxCompletionTokens,
            reasoning: ReasoningReplay::ReasoningContent,
            prompt_cache_key: true,
        },
        reasoning: Some(Reasoning::Effort(Effort::High)),
        max_output_tokens: Some(4096),
        proxy: Some("http://ann:canary@proxy.example:3128".parse().unwrap()),
        ca_file: Some(PathBuf::from("/etc/ca.pem")),
        ..ProviderConfig::new(ProviderKind::OpenAiCompatible)
    };
    assert_eq!(config.providers["local"], local);
    assert!(!format!("{config:?}").contains("canary"));
    let ollama = ProviderConfig {
        context_tokens: Some(32_768),
        reasoning: Some(Reasoning::Off),
        // Who may begin that late may also work that long without a sign of it.
        limits: iris_llm::Limits {
            first_byte: Duration::from_mins(15),
            idle: Duration::from_mins(1),
            progress: Duration::from_mins(15),
            ..iris_llm::Limits::default()
        },
        ..ProviderConfig::new(ProviderKind::Ollama)
    };
    assert_eq!(config.providers["o"], ollama);
}

#[test]
fn bad_words_about_providers_are_refused_and_useless_ones_are_warnings() {
    for (key, value, problem) in [
        ("STREAM_OPTIONS", "yes", "`yes` is not `true` or `false`"),
        ("MAX_TOKENS_NAME", "tokens", "`tokens` is not `max_tokens` or `max_completion_tokens`"),
        (
            "REASONING_REPLAY",
            "all",
            "`all` is not `none`, `reasoning_content`, `reasoning` or `reasoning_details`",
        ),
        (
            "REASONING",
            "hard",
            "`hard` is not `off`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`",
        ),
        ("MAX_OUTPUT_TOKENS", "0", "`0` is not a whole number, 1 to 10000000"),
        (
            "PROXY",
            "socks5://u:canary@x",
            "it is not of the form `http://[user:password@]host:port`",
        ),
    ] {
        let name = format!("IRIS_PROVIDERS__LOCAL__{key}");
        let mut variables = vec![(name.as_str(), value)];
        variables.extend(LOCAL);
        assert_refused(from_env(&variables), &format!("bad value of `{name}`: {problem}"));
    }
    let variables = [
        ("IRIS_PROVIDERS__A__KIND", "anthropic"),
        ("IRIS_PROVIDERS__A__CONTEXT_TOKENS", "5"),
        ("IRIS_PROVIDERS__A__STREAM_OPTIONS", "true"),
        ("IRIS_PROVIDERS__A__REASONING", "low"),
    ];
    let (_, warnings) = load_all(None, &variables, Flags::default()).unwrap();
    assert_eq!(warnings, ["`providers.a.stream_options` has no effect: its kind is `anthropic`"]);
}

#[test]
fn a_provider_needs_a_good_name_a_kind_and_where_to_find_it() {
    assert_refused(
        from_file("[providers.My-Llm]\nkind = 'scripted'"),
        "bad provider name `My-Llm`: use lower case letters, digits, `-` and `_`",
    );
    assert_refused(
        from_file("[providers.local]"),
        "`providers.local.kind` is missing; in the environment: `IRIS_PROVIDERS__LOCAL__KIND`",
    );
    assert_refused(
        from_env(&[("IRIS_PROVIDERS__LOCAL__KIND", "openai-compatible")]),
        "`providers.local.base_url` is missing; in the environment: \
         `IRIS_PROVIDERS__LOCAL__BASE_URL`",
    );
    assert_refused(
        from_env(&[("IRIS_DEFAULT_MODEL", "local/m")]),
        "bad value of `IRIS_DEFAULT_MODEL`: no provider `local` is configured (in `local/m`)",
    );
}

const COMPANY: [(&str, &str); 3] = [
    ("IRIS_OAUTH__COMPANY__KIND", "oidc"),
    ("IRIS_OAUTH__COMPANY__ISSUER", "https://login.example/realms/a"),
    ("IRIS_OAUTH__COMPANY__CLIENT_ID", "iris"),
];

#[test]
fn providers_of_logins_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    fs::write(&path, "canary-of-a-file\n").unwrap();
    let file = "[oauth.github]\nkind = 'github'\nclient_id = 'a'\nclient_secret = 'canary-b'\n
        [oauth.company]\nscopes = ['openid', 'groups']";
    let mut variables = COMPANY.to_vec();
    variables.extend([
        ("IRIS_OAUTH__COMPANY__TITLE", "The company"),
        ("IRIS_OAUTH__COMPANY__CLIENT_SECRET_FILE", path.to_str().unwrap()),
        ("IRIS_OAUTH__COMPANY__TRUST_EMAIL", "true"),
        ("IRIS_OAUTH_REDIRECTS", "https://a.example/in, com.example.app:/in"),
    ]);
    let (config, warnings) = load_all(Some(file), &variables, Flags::default()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.oauth_redirects, ["https://a.example/in", "com.example.app:/in"]);
    let secret =
        |name: &str| config.oauth[name].client_secret.as_ref().unwrap().expose().to_owned();
    assert_eq!(
        (secret("company"), secret("github")),
        ("canary-of-a-file".into(), "canary-b".into())
    );
    let (company, github) = (&config.oauth["company"], &config.oauth["github"]);
    assert_eq!(company.issuer, "https://login.example/realms/a");
    assert_eq!((company.title.as_str(), github.title.as_str()), ("The company", "GitHub"));
    assert_eq!(company.scopes, ["openid", "groups"]);
    assert_eq!(github.scopes, ["read:user", "user:email"]);
    assert_eq!((company.trusts_email, github.trusts_email), (true, false));
    assert!(!format!("{config:?}").contains("canary"), "{config:?}");
}

#[test]
fn providers_of_logins_that_cannot_be_are_refused_and_no_secret_is_shown() {
    for (name, value, problem) in [
        ("KIND", "saml", "`IRIS_OAUTH__COMPANY__KIND`: `saml` is not `github`, `google` or `oidc`"),
        (
            "ISSUER",
            "http://login.example",
            "`oauth.company`: has an `issuer` that is no `https` URL",
        ),
        ("CLIENT_ID", " ", "`IRIS_OAUTH__COMPANY__CLIENT_ID`: expected a text that is not empty"),
        ("SCOPES", "email", "`oauth.company`: has `scopes` without `openid`"),
        ("SCOPES", "openid,a b", "`IRIS_OAUTH__COMPANY__SCOPES`: `a b` is not a scope"),
        (
            "TRUST_EMAIL",
            "yes",
            "`IRIS_OAUTH__COMPANY__TRUST_EMAIL`: `yes` is not `true` or `false`",
        ),
        ("CLIENT_SECRET_FILE", "/none", "`oauth.company`: has a `client_secret_file` that cannot"),
        ("KIND", "google", "`oauth.company`: needs a `client_secret` or a `client_secret_file`"),
    ] {
        let name = format!("IRIS_OAUTH__COMPANY__{name}");
        let mut variables = COMPANY.to_vec();
        variables.push((&name, value));
        let error = from_env(&variables).unwrap_err().to_string();
        assert!(error.starts_with(&format!("bad value of {problem}")), "{error}");
    }
    let file =
        "[oauth.github]\nkind = 'github'\nclient_id = 'a'\nclient_secret = 'b'\ntrust_email = ";
    assert!(from_file(&format!("{file}false")).is_ok());
    let error = from_file(&format!("{file}true")).unwrap_err().to_string();
    assert!(error.contains("`oauth.github`: has `trust_email`"), "{error}");
    for missing in 0..COMPANY.len() {
        let mut variables = COMPANY.to_vec();
        variables.remove(missing);
        let error = from_env(&variables).unwrap_err().to_string();
        assert!(error.starts_with("bad value of `oauth.company`: needs a"), "{error}");
    }
    let both = [
        ("IRIS_OAUTH__COMPANY__CLIENT_SECRET", "canary"),
        ("IRIS_OAUTH__COMPANY__CLIENT_SECRET_FILE", "/none"),
    ];
    let error = from_env(&[&COMPANY[..], &both].concat()).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("canary"), "{error}");
    assert!(
        from_file("[oauth.My-Login]\nkind = 'oidc'")
            .unwrap_err()
            .to_string()
            .contains("lower case")
    );
    assert!(from_file("[oauth.a]\nkey = 'x'").is_err());
}

#[test]
fn redirects_are_as_browsers_write_them() {
    for bad in [
        "http://a.example/",
        "https://a.example",
        "https://A.example/",
        "https://a.example/#x",
        "https://u@a.example/",
        "https://a.example:443/",
        "javascript:alert(1)",
        "a.example/in",
    ] {
        assert!(from_env(&[("IRIS_OAUTH_REDIRECTS", bad)]).is_err(), "{bad}");
    }
    for good in ["https://a.example/", "http://localhost:5173/in?x=y", "com.example.app:/in"] {
        let config = from_env(&[("IRIS_OAUTH_REDIRECTS", good)]).unwrap();
        assert_eq!(config.oauth_redirects, [good]);
    }
}

#[test]
fn a_file_that_is_not_toml_names_its_line_and_none_of_its_text() {
    let error = from_file("log = 'info'\n[providers.a]\napi_key = sk-canary").unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("`/etc/iris.toml`, line 3: "), "{text}");
    assert!(!format!("{error:?} {text}").contains("sk-canary"), "{error:?}");
    assert!(matches!(from_file("log = 'a'\nlog = 'b'"), Err(ConfigError::Syntax { line: 2, .. })));
}

#[test]
fn secrets_are_shown_nowhere() {
    let secrets =
        [("IRIS_SETUP_TOKEN", "canary-1-of-tests"), ("IRIS_PROVIDERS__LOCAL__API_KEY", "canary-2")];
    let variables = [LOCAL, secrets].concat();
    let shown = format!("{:?}", from_env(&variables).unwrap());
    assert!(!shown.contains("canary"), "{shown}");

    for (name, value) in [
        ("IRIS_SETUP_TOKEN", "canary-of-15-by"),
        ("IRIS_PROVIDERS__LOCAL__API_KEY", "canary with spaces"),
        ("IRIS_PROVIDERS__LOCAL__API_KEY", ""),
        ("IRIS_PROVIDERS__LOCAL__BASE_URL", "http://user:canary@a/v1"),
    ] {
        let mut variables = LOCAL.to_vec();
        variables.push((name, value));
        let error = from_env(&variables).unwrap_err();
        assert!(error.to_string().starts_with(&format!("bad value of `{name}`: ")), "{error}");
        assert!(!format!("{error:?} {error}").contains("canary"), "{error:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_named_when_it_is_ours() {
    use std::os::unix::ffi::OsStringExt;

    let bad = || OsString::from_vec(vec![0xff]);
    let result = environment([(OsString::from("IRIS_BIND"), bad())].into_iter());
    let sentence = "the environment variable `IRIS_BIND` is not UTF-8";
    assert_eq!(result.unwrap_err().to_string(), sentence);
    let others = [(OsString::from("OTHER"), bad()), (bad(), bad())];
    assert!(environment(others.into_iter()).unwrap().is_empty());
}

#[test]
fn budgets_are_read_exactly_or_refused() {
    let config = from_env(&[
        ("IRIS_BUDGET_RUN", "steps=40, usd=2.5,minutes=30"),
        ("IRIS_BUDGET_USER_MONTH", "usd=0.000000001"),
    ])
    .unwrap();
    let run = config.budgets.project.run;
    assert_eq!((run.steps, run.tokens), (Some(40), None));
    assert_eq!(run.cost_nano_usd, Some(2_500_000_000));
    assert_eq!(run.wall_time_ms, Some(1_800_000));
    assert_eq!(config.budgets.user.month.cost_nano_usd, Some(1));
    assert!(config.budgets.project.session.is_empty());
    for bad in ["usd=-1", "usd=1.2345678901", "usd=", "usd", "eur=1", "steps=1.5", "steps=-1"] {
        let error = from_env(&[("IRIS_BUDGET_SESSION", bad)]).unwrap_err().to_string();
        assert!(error.contains(&format!("`{bad}` is not of the form")), "{error}");
    }
}

#[test]
fn whose_models_a_provider_has_and_whether_they_are_free_is_the_operators_word() {
    let config = from_env(&[
        ("IRIS_PROVIDERS__DEEP__KIND", "openai-compatible"),
        ("IRIS_PROVIDERS__DEEP__BASE_URL", "https://api.example.com/v1"),
        ("IRIS_PROVIDERS__DEEP__CATALOG", "deepseek"),
        ("IRIS_PROVIDERS__DEEP__FREE", "true"),
        ("IRIS_MODEL_CATALOG", "/etc/models.json"),
        ("IRIS_DETECT_MODELS", "false"),
    ])
    .unwrap();
    let deep = &config.providers["deep"];
    assert_eq!(
        (deep.catalog.as_deref(), deep.free, deep.images),
        (Some("deepseek"), Some(true), None)
    );
    assert_eq!(config.model_catalog.as_deref(), Some(Path::new("/etc/models.json")));
    assert!(!config.detect_models);
}

#[test]
fn a_certificate_and_its_key_are_named_both_or_neither() {
    for (variable, lacking) in [
        ("IRIS_TLS_CERTIFICATE_FILE", "tls_key_file"),
        ("IRIS_TLS_KEY_FILE", "tls_certificate_file"),
    ] {
        let error = load_all(None, &[(variable, "/a")], Flags::default()).unwrap_err();
        assert!(error.to_string().contains(lacking), "{error}");
    }
}

#[test]
fn limits_of_runs_and_commands_are_read() {
    let config = from_env(&[
        ("IRIS_RUNS_WORKING_MAX", "3"),
        ("IRIS_RUNS_WORKING_PER_PROJECT_MAX", "0"),
        ("IRIS_COMMANDS_RUNNING_PER_USER_MAX", "1"),
        ("IRIS_COMMANDS_DISK_FREE_BYTES_MIN", "0"),
        ("IRIS_SANDBOX_NICE", "0"),
        ("IRIS_SANDBOX_CPU_PERCENT", "150"),
        ("IRIS_SANDBOX_MEMORY_BYTES_MAX", "1073741824"),
    ])
    .unwrap();
    let runs = LineLimits { server: Some(3), project: None, user: Some(256) };
    let commands = LineLimits { server: Some(64), project: Some(32), user: Some(1) };
    assert_eq!(config.shares, Shares { runs, commands, disk_free_bytes_min: 0 });
    let limits = config.sandbox.unwrap().limits;
    assert_eq!((limits.nice, limits.cpu_percent), (0, Some(150)));
    assert_eq!(limits.memory_bytes, 1 << 30);
}

#[test]
fn a_secret_may_be_in_a_file_and_is_not_given_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let at = path.to_str().unwrap();
    fs::write(&path, "canary of a file, long enough\r\n").unwrap();
    let config = from_env(&[("IRIS_SETUP_TOKEN_FILE", at)]).unwrap();
    assert!(config.setup_token.unwrap().matches("canary of a file, long enough"));
    fs::write(&path, "sk-canary\n").unwrap();
    let mut variables = LOCAL.to_vec();
    variables.push(("IRIS_PROVIDERS__LOCAL__API_KEY_FILE", at));
    let config = from_env(&variables).unwrap();
    assert_eq!(config.providers["local"].api_key, Some(ApiKey::new("sk-canary")));
    variables.push(("IRIS_PROVIDERS__LOCAL__API_KEY", "sk-other"));
    assert_refused(
        from_env(&variables),
        "bad value of `IRIS_PROVIDERS__LOCAL__API_KEY_FILE`: `IRIS_PROVIDERS__LOCAL__API_KEY` is set too: \
         one of them is enough",
    );
    let error = from_env(&[("IRIS_SETUP_TOKEN_FILE", "/none")]).unwrap_err().to_string();
    let beginning = "bad value of `IRIS_SETUP_TOKEN_FILE`: the file cannot be read: ";
    assert!(error.starts_with(beginning), "{error}");
    let error = from_env(&[("IRIS_SETUP_TOKEN_FILE", at)]).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("canary"), "{error}");
}

/// Without what is there to tell changes by.
fn shown(config: Config) -> String {
    format!("{:?}", Config { given: Given::default(), ..config })
}

#[test]
fn the_printed_file_has_every_key_and_says_what_holds_without_it() {
    let defaults = shown(from_env(&[]).unwrap());
    for explain in [false, true] {
        let text = reference_file(explain);
        assert_eq!(shown(from_file(&text).unwrap()), defaults);
        for (_, key) in reference::all() {
            let line = format!("{} = ", key.name);
            let has =
                |text: &str| text.lines().any(|it| it.trim_start_matches("# ").starts_with(&line));
            assert!(has(&text), "{line}");
        }
        assert!(text.lines().all(|line| line.len() <= 102), "{text}");
    }
    // With the marks of the examples taken away it is TOML still.
    let file = reference_file(false);
    let lines = file.lines().map(|line| {
        let example = line.strip_prefix("# ");
        example.filter(|it| it.contains(" = ") || it.starts_with('[')).unwrap_or(line)
    });
    let lines: Vec<&str> = lines.filter(|line| !line.starts_with('#')).collect();
    let text = lines.join("\n");
    let error = toml::from_str::<toml::Table>(&text).err();
    assert!(error.is_none(), "{error:?}\n{text}");
}

/// Sets one key in the environment, with what it needs beside it.
fn with_one(table: Option<&str>, name: &str, value: &str) -> Result<Config, ConfigError> {
    let upper = name.to_ascii_uppercase();
    let mut variables = match table {
        None => Vec::new(),
        Some("providers") => LOCAL.to_vec(),
        Some(_) => COMPANY.to_vec(),
    };
    let variable = match table {
        None => format!("IRIS_{upper}"),
        Some("providers") => format!("IRIS_PROVIDERS__LOCAL__{upper}"),
        Some(_) => format!("IRIS_OAUTH__COMPANY__{upper}"),
    };
    variables.retain(|(known, _)| *known != variable);
    variables.push((&variable, value));
    from_env(&variables)
}

#[test]
fn what_the_reference_says_of_values_is_what_is_taken() {
    use reference::Shape;

    for (table, key) in reference::all() {
        let name = key.name;
        let taken = |value: &str| with_one(table, name, value).is_ok();
        match key.shape {
            Shape::Whole(_, min, max) => {
                assert!(taken(&min.to_string()), "{name} {min}");
                assert!(taken(&max.to_string()), "{name} {max}");
                assert!(min == 0 || !taken(&(min - 1).to_string()), "{name} below {min}");
                let is_bounded = max < parse::NUMBER_MAX && max < u64::from(u32::MAX);
                assert!(!is_bounded || !taken(&(max + 1).to_string()), "{name} above {max}");
                assert!(!taken("many"), "{name}");
            }
            Shape::Switch => {
                assert!(taken("true") && taken("false") && !taken("yes"), "{name}");
            }
            Shape::OneOf(words) => {
                // The kinds of logins need each other things beside them.
                let is_free = (table, name) != (Some("oauth"), "kind");
                assert!(!is_free || words.iter().all(|word| taken(word)), "{name}");
                assert!(!taken("something-else"), "{name}");
            }
            Shape::Path(_) | Shape::Text(..) | Shape::Secret(_) | Shape::List(..) => {}
        }
    }
}

/// The table is the reference in another form: `key.row` says how a line has to be.
#[test]
fn the_table_of_the_documents_says_what_the_reference_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md")];
    documents.extend(fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
    let text: String = documents.iter().map(read).collect();
    // A link leads from where the table is.
    let plain = |line: &str| line.replace("](docs/", "](");
    let lines: Vec<String> = text.lines().map(plain).collect();
    for (table, key) in reference::all() {
        let row = plain(&key.row(table));
        assert!(lines.contains(&row), "no line of the table is\n{row}");
    }
}

#[test]
fn what_changed_is_named_by_its_key_and_by_whether_it_counts_at_once() {
    let before = from_file("log = 'info'\nbind = '127.0.0.1:1'\nrequests_burst = 5").unwrap();
    let text = "log = 'debug'\nrequests_burst = 5\n[providers.a]\nkind = 'scripted'";
    let after = from_file(text).unwrap();
    let (live, waiting) = after.changes(&before);
    assert_eq!(live, ["log"]);
    assert_eq!(waiting, ["bind", "providers.a.kind"]);
    let (live, waiting) = after.changes(&after);
    assert!(live.is_empty() && waiting.is_empty());
}
