//! Configuration: every option documented and overridable, everything wrong reported at once.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use personas::config::{Config, ConfigError, DEFAULTS, LogFormat, Sources, variable};

/// An option of `config/personas.toml`.
struct Documented {
    section: String,
    name: String,
    default: String,
    comment: String,
}

impl Documented {
    fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// The sections with their comments, and the options with theirs.
fn documented() -> (Vec<(String, String)>, Vec<Documented>) {
    let (mut sections, mut options) = (Vec::<(String, String)>::new(), Vec::new());
    let mut comment: Vec<&str> = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim());
        } else if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections.push((section.to_owned(), comment.join(" ")));
            comment.clear();
        } else if let Some((name, default)) = line.split_once(" = ") {
            let section = sections.last().unwrap().0.clone();
            let (name, default) = (name.to_owned(), default.to_owned());
            options.push(Documented { section, name, default, comment: comment.join(" ") });
            comment.clear();
        } else {
            assert_eq!(line, "", "not a comment, section, option or empty line");
            comment.clear();
        }
    }
    (sections, options)
}

fn with_variables(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::load(&Sources { variables, ..Sources::default() })
}

fn with_file(text: &str) -> Result<Config, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    Config::load(&Sources { file: Some(file.path().to_owned()), ..Sources::default() })
}

fn paths(refused: Result<Config, ConfigError>) -> Vec<String> {
    refused.expect_err("must be refused").problems.into_iter().map(|problem| problem.path).collect()
}

#[test]
fn the_defaults_are_good_and_all_known() {
    let config = with_variables(&[]).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert!(config.database.url.is_none() && config.embedded.postgres_bin.is_none());
    assert_eq!(config.ingest.inflight_bytes_max, 64 << 20);
    assert_eq!(config.telemetry.format, LogFormat::Text);
}

#[test]
fn every_option_has_a_comment_and_a_variable() {
    for option in documented().1 {
        let path = option.path();
        assert!(
            option.comment.ends_with('.'),
            "{path} needs a comment that is a sentence: {:?}",
            option.comment
        );
        let unit =
            ["_ms", "_seconds", "_days", "_bytes_max", "_bytes_min"].iter().any(|u| option.name.ends_with(u));
        assert!(!unit || option.comment.contains("in "), "{path} needs its unit in the comment");
        // No option takes this text, so a complaint about exactly this option shows that the variable reaches it.
        let name = variable(&path);
        let free_text = option.default.starts_with('"')
            && ![
                "server.internal_listen",
                "server.listen",
                "server.tls_certificate_file",
                "server.tls_key_file",
                "server.trusted_proxies",
                "database.url",
                "egress.ports",
                "egress.allow_networks",
                "deliver.secret_key",
                "deliver.secret_keys_old",
                "telemetry.log",
                "telemetry.format",
            ]
            .contains(&&*path);
        let result = with_variables(&[(&name, if free_text { "changed" } else { "=/=" })]);
        if free_text {
            assert!(
                format!("{:?}", result.unwrap()) != format!("{:?}", with_variables(&[]).unwrap()),
                "{name}"
            );
        } else {
            let error = result.expect_err(&name);
            assert_eq!(error.problems.len(), 1, "{error}");
            assert_eq!((&error.problems[0].path, &error.problems[0].source), (&path, &name), "{error}");
        }
    }
}

#[test]
fn what_destinations_may_reach_is_listed_with_commas() {
    let none = with_variables(&[]).unwrap().egress;
    assert_eq!(
        (none.ports, none.allow_networks.len(), none.allow_hosts.len()),
        (vec![80, 443, 8080, 8443], 0, 0)
    );
    let config = with_variables(&[
        ("PERSONAS_EGRESS_PORTS", "443,9000"),
        ("PERSONAS_EGRESS_ALLOW_NETWORKS", "10.1.0.0/16, fd12::/16 ,10.2.0.1,"),
        ("PERSONAS_EGRESS_ALLOW_HOSTS", "collector.internal"),
    ]);
    let egress = config.unwrap().egress;
    assert_eq!(egress.ports, [443, 9000]);
    let networks: Vec<String> = egress.allow_networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.1.0.0/16", "fd12::/16", "10.2.0.1/32"]);
    assert_eq!(egress.allow_hosts, ["collector.internal"]);
    assert!(with_variables(&[("PERSONAS_EGRESS_PORTS", "443,0")]).is_err());
    assert!(with_variables(&[("PERSONAS_EGRESS_ALLOW_NETWORKS", "10.0.0.0/33")]).is_err());
}

#[test]
fn later_sources_win() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        file.path(),
        "[server]\nlisten = '127.0.0.1:1'\n[log]\nretention_days = 1\n[query]\nnesting_max = 1\n",
    )
    .unwrap();
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let config = Config::load(&Sources {
        file: Some(file.path().to_owned()),
        variables: BTreeMap::from([
            variable("PERSONAS_LISTEN", "127.0.0.1:2"),
            variable("PERSONAS_LOG_RETENTION_DAYS", "2"),
            variable("DATABASE_URL", "postgres://me:secret@host/db"),
            variable("PERSONAS_BOOTSTRAP_WRITE_KEY", "12345"),
        ]),
        flags: vec![("server.listen", "127.0.0.1:3".to_owned())],
    })
    .unwrap();
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.log.retention_days, 2);
    assert_eq!(config.query.nesting_max, 1);
    assert_eq!(config.bootstrap.write_key.as_ref().unwrap().expose(), "12345");
    assert_eq!(config.database.url.as_ref().unwrap().expose(), "postgres://me:secret@host/db");
    let shown = format!("{config:?}");
    assert!(!shown.contains("secret@") && !shown.contains("12345"), "{shown}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let error = with_file(
        "[server]\nlisten = 'nowhere'\nmax_connection = 5\n[ingest]\nbatch_events_max = '7'\njson_depth_max = 1000\n\
         [log]\nretention_days = -1\n[telemetry]\nformat = 'xml'\n[databse]\nurl = ''\n",
    )
    .unwrap_err();
    let text = error.to_string();
    for wanted in [
        "server.listen",
        "server.max_connection (from ",
        "did you mean server.max_connections?",
        "ingest.batch_events_max",
        "ingest.json_depth_max",
        "from 1 to 127",
        "log.retention_days",
        "telemetry.format",
        "databse.url",
        "did you mean database.url?",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert_eq!(error.problems.len(), 7, "{text}");
}

#[test]
fn bad_configurations_are_refused() {
    for (text, path) in [
        ("[server", "the file"),
        ("server = 3", "server"),
        ("[server]\nlisten = 8080", "server.listen"),
        ("[server]\nlisten = 'localhost'", "server.listen"),
        ("[server]\nheader_timeout_ms = 0", "server.header_timeout_ms"),
        ("[server]\nheader_timeout_ms = 1.5", "server.header_timeout_ms"),
        ("[server]\nheader_timeout_ms = true", "server.header_timeout_ms"),
        ("[server]\nheader_timeout_ms = 9223372036854775807", "server.header_timeout_ms"),
        ("[server.listen]\nport = 3", "server.listen"),
        ("[database]\nurl = 'mysql://localhost/db'", "database.url"),
        ("[database]\nurl = 'host=localhost'", "database.url"),
        ("[database]\nmax_connections = 0", "database.max_connections"),
        ("[embedded]\ndata_dir = ''", "embedded.data_dir"),
        ("[bootstrap]\nspace = ''", "bootstrap.space"),
        ("[telemetry]\nlog = 'info,=,='", "telemetry.log"),
        ("[ingest]\nfuture_tolerance_ms = -1", "ingest.future_tolerance_ms"),
        ("listen = '127.0.0.1:1'", "listen"),
    ] {
        assert_eq!(paths(with_file(text)), [path], "{text}");
    }
    let missing = Sources { file: Some("/no/such/file.toml".into()), ..Sources::default() };
    assert_eq!(paths(Config::load(&missing)), ["the file"]);
    assert_eq!(paths(with_variables(&[("PERSONAS_SERVER_LISTN", "x")])), ["PERSONAS_SERVER_LISTN"]);
}

#[test]
fn variables_of_others_are_passed_over() {
    with_variables(&[
        ("PATH", "/bin"),
        ("PERSONAS_URL", "http://127.0.0.1:8080"),
        ("PERSONAS_SERVICE_HOST", "10.0.0.1"),
        ("PERSONAS_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
    ])
    .unwrap();
}

#[test]
fn the_page_about_it_is_up_to_date() {
    let (sections, options) = documented();
    let mut page = String::from(
        "# Configuration\n\n<!-- made from config/personas.toml by `make generate` -->\n\n\
         Defaults, then a file, then environment variables, then flags: later wins. The file is the one named with\n\
         `--config` or `PERSONAS_CONFIG`, else `./personas.toml` when it is there. Names end in their unit. Unknown\n\
         names and values out of range stop the start with exit code 78 and a list of everything that is wrong.\n",
    );
    for (section, comment) in sections {
        let head = "| Option | Default | Variable | What it is |\n|---|---|---|---|";
        writeln!(page, "\n## [{section}]\n{comment}\n\n{head}").unwrap();
        for o in options.iter().filter(|option| option.section == section) {
            let variable = variable(&o.path());
            writeln!(page, "| `{}` | `{}` | `{variable}` | {} |", o.name, o.default, o.comment).unwrap();
        }
    }
    crate::harness::generated::check(Path::new("docs/configuration.md"), &page);
}
