//! Who gets in: TLS, client certificates, tokens, pages of other origins.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use spandrel::api::access::{Scope, new_token};
use spandrel::api::listen::TlsFiles;
use spandrel::config::RawConfig;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use ureq::tls::{ClientCert, PemItem, RootCerts, TlsConfig};

use crate::support::{Answer, TestServer, answer, block_on, get, grpc, post, request};

/// Certificates of a test, in a directory of their own.
struct Pki {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are fine");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let pki = Self { dir: tempfile::tempdir().expect("a directory"), authority };
        pki.write("ca.pem", &pki.authority.pem());
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the directory is writable");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("it was written")
    }

    /// `<name>.pem` and `<name>.key`, signed by the authority, good until `year`.
    fn issue(&self, name: &str, year: i32) -> CertificateParams {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.serial_number = Some(name.as_bytes().to_vec().into());
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.authority).expect("it is signed");
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
        params
    }

    fn revoke(&self, name: &str) {
        let revoked = rcgen::RevokedCertParams {
            serial_number: name.as_bytes().to_vec().into(),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2099, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        self.write("crl.pem", &list.signed_by(&self.authority).expect("it is signed").pem().expect("it is PEM"));
    }

    fn files(&self, with_clients: bool) -> TlsFiles {
        TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_authorities: with_clients.then(|| self.path("ca.pem")),
            client_revocations: with_clients.then(|| self.path("crl.pem")),
        }
    }

    /// An HTTP client that trusts the authority, and shows the certificate `client` if there is one.
    fn agent(&self, client: Option<&str>) -> ureq::Agent {
        let pem = |name: &str| {
            let text = self.read(name);
            let items = ureq::tls::parse_pem(text.as_bytes());
            items.map(|item| item.expect("PEM")).collect::<Vec<_>>()
        };
        let mut tls = TlsConfig::builder();
        for item in pem("ca.pem") {
            if let PemItem::Certificate(certificate) = item {
                tls = tls.root_certs(RootCerts::new_with_certs(&[certificate]));
            }
        }
        if let Some(name) = client {
            let mut certificates = Vec::new();
            for item in pem(&format!("{name}.pem")) {
                if let PemItem::Certificate(certificate) = item {
                    certificates.push(certificate);
                }
            }
            let key = pem(&format!("{name}.key")).into_iter().find_map(|item| match item {
                PemItem::PrivateKey(key) => Some(key),
                _ => None,
            });
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates, key.expect("a key"))));
        }
        let config = ureq::Agent::config_builder().http_status_as_error(false).tls_config(tls.build());
        config.timeout_global(Some(Duration::from_secs(20))).build().into()
    }

    async fn channel(
        &self,
        address: std::net::SocketAddr,
        client: Option<&str>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.read("ca.pem")));
        if let Some(name) = client {
            let identity = Identity::from_pem(self.read(&format!("{name}.pem")), self.read(&format!("{name}.key")));
            tls = tls.identity(identity);
        }
        let endpoint =
            Endpoint::new(format!("https://localhost:{}", address.port())).expect("a URL").tls_config(tls)?;
        endpoint.connect().await
    }
}

#[test]
fn otlp_09_tls_on_every_port_over_http1_and_http2_with_grpc() {
    let pki = Pki::new();
    let _params = pki.issue("server", 2099);
    let files = pki.files(false);
    let server = TestServer::with(move |config| config.tls = Some(files.clone()));
    let agent = pki.agent(None);
    let ready = answer(agent.get(format!("https://{}/ready", server.addresses.http)).call());
    assert_eq!(ready.status, 200);
    let url = format!("https://{}/v1/traces", server.addresses.otlp_http);
    let sent = agent.post(url).header("content-type", "application/x-protobuf").send(request(3, 1).encode_to_vec());
    assert_eq!(answer(sent).status, 200);
    block_on(async {
        for address in [server.addresses.otlp_grpc, server.addresses.otlp_http] {
            let channel = pki.channel(address, None).await.expect("h2 by ALPN");
            let _stored = TraceServiceClient::new(channel).export(request(3, 10)).await.expect("it is stored");
        }
    });
    let plain = std::panic::catch_unwind(|| get(&format!("http://{}/ready", server.addresses.http), &[]));
    assert!(plain.is_err() || plain.is_ok_and(|answer| answer.status != 200), "nothing is told in clear text");
}

#[test]
fn sec_10_a_client_needs_a_certificate_that_is_ours_and_not_expired_and_not_revoked() {
    let (pki, other) = (Pki::new(), Pki::new());
    for (name, year) in [("server", 2099), ("good", 2099), ("expired", 2021), ("revoked", 2099)] {
        let _params = pki.issue(name, year);
    }
    pki.revoke("revoked");
    let _params = other.issue("foreign", 2099);
    for suffix in ["pem", "key"] {
        pki.write(&format!("foreign.{suffix}"), &other.read(&format!("foreign.{suffix}")));
    }
    let files = pki.files(true);
    let server = TestServer::with(move |config| config.tls = Some(files.clone()));
    let url = format!("https://{}/ready", server.addresses.http);
    for (client, welcome) in [
        (Some("good"), true),
        (None, false),
        (Some("expired"), false),
        (Some("revoked"), false),
        (Some("foreign"), false),
    ] {
        let answered = pki.agent(client).get(&url).call();
        assert_eq!(answered.is_ok(), welcome, "{client:?}: {answered:?}");
    }
    block_on(async {
        let channel = pki.channel(server.addresses.otlp_grpc, Some("good")).await.expect("welcome");
        let _stored = TraceServiceClient::new(channel).export(request(1, 1)).await.expect("it is stored");
    });
}

#[test]
fn otlp_09_certificates_are_renewed_under_load_without_a_failed_request() {
    let pki = Pki::new();
    let _params = pki.issue("server", 2098);
    let files = pki.files(false);
    let server = TestServer::with(move |config| config.tls = Some(files.clone()));
    let url = format!("https://{}/healthz", server.addresses.http);
    let old = served_certificate(&pki, server.addresses.http);
    // First nonsense, which changes nothing; then a new one, which is served within a second or so.
    pki.write("server.pem", "-----BEGIN NONSENSE-----");
    let kept = pki.agent(None);
    let until = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < until {
        assert_eq!(answer(pki.agent(None).get(&url).call()).status, 200);
    }
    let _params = pki.issue("server", 2099);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert_eq!(answer(pki.agent(None).get(&url).call()).status, 200, "a new connection");
        assert_eq!(answer(kept.get(&url).call()).status, 200, "a connection from before");
        if served_certificate(&pki, server.addresses.http) != old {
            break;
        }
        assert!(Instant::now() < deadline, "the new certificate is not served");
    }
}

/// The certificate that a new connection is shown, DER.
fn served_certificate(pki: &Pki, address: std::net::SocketAddr) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.read("ca.pem").as_bytes()).expect("PEM")).expect("an authority");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.expect("the port answers");
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let stream = connector.connect(name, stream).await.expect("a handshake");
        let (_, session) = stream.get_ref();
        session.peer_certificates().expect("certificates")[0].as_ref().to_vec()
    })
}

/// A token file with one token for each scope, one that has expired, and what they are.
fn tokens(dir: &Path) -> (PathBuf, Vec<(&'static str, String)>) {
    let mut text = String::new();
    let mut tokens = Vec::new();
    for (name, scopes, expires) in [
        ("ingest", vec![Scope::Ingest], None),
        ("query", vec![Scope::Query], Some("2099-01-01T00:00:00Z".to_owned())),
        ("admin", vec![Scope::Admin], None),
        ("expired", vec![Scope::Admin], Some("2021-01-01T00:00:00Z".to_owned())),
    ] {
        let (token, entry) = new_token(name, &scopes, expires).expect("randomness");
        let entry = toml::to_string(&entry).expect("it is TOML");
        assert!(!entry.contains(&token), "sec_27: the token itself stands nowhere");
        text.extend(["[[token]]\n", &entry]);
        tokens.push((name, token));
    }
    let path = dir.join("tokens.toml");
    std::fs::write(&path, text).expect("the directory is writable");
    (path, tokens)
}

#[test]
fn sec_11_bi_126_bi_127_every_port_asks_for_its_scope_before_the_body() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, mut tokens) = tokens(dir.path());
    let server = TestServer::with(move |config| config.access.tokens = Some(path.clone()));
    tokens.extend([("none", String::new()), ("wrong", "spandrel_0000".to_owned())]);
    let query = format!("http://{}", server.addresses.http);
    let ingest = format!("http://{}/v1/traces", server.addresses.otlp_http);
    for (name, token) in &tokens {
        let bearer = format!("bEARER {token}");
        let headers = if token.is_empty() { vec![] } else { vec![("authorization", bearer.as_str())] };
        let denied = matches!(*name, "none" | "wrong" | "expired");
        let expected = |welcome: &[&str]| {
            if denied {
                401
            } else if welcome.contains(name) {
                200
            } else {
                403
            }
        };
        for path in [
            "/metrics",
            "/spandrel/v1/services",
            "/spandrel/v1/status",
            "/spandrel/v1/percentile?service=a",
            "/spandrel/v1/traces/07",
            "/spandrel/v1/export",
            "/api/traces/07",
            "/api/v2/traces/07",
            "/api/echo",
            "/api/search",
            "/api/v2/search/tags",
            "/api/v2/search/tag/name/values",
            "/jaeger/api/services",
            "/zipkin/api/v2/services",
            "/nowhere",
        ] {
            let status = get(&format!("{query}{path}"), &headers).status;
            let (expected, got) = (expected(&["query", "admin"]), if status == 404 { 200 } else { status });
            assert_eq!(got, expected, "{path} with {name}: {status}");
        }
        for path in ["/healthz", "/ready", "/"] {
            assert_eq!(get(&format!("{query}{path}"), &headers).status, 200, "{path} with {name}");
        }
        let mut headers = headers.clone();
        headers.push(("content-type", "application/x-protobuf"));
        // An undecodable body: whoever sees it would answer 400.
        let answer = post(&ingest, &headers, b"\xff");
        let status = expected(&["ingest", "admin"]);
        assert_eq!(answer.status, if status == 200 { 400 } else { status }, "/v1/traces with {name}");
        assert_eq!(answer.header("www-authenticate"), if denied { "Bearer" } else { "" });
        let code = block_on(async {
            let mut request = tonic::Request::new(request(1, 1));
            if !token.is_empty() {
                let _none = request.metadata_mut().insert("authorization", bearer.parse().expect("ASCII"));
            }
            grpc(server.addresses.otlp_grpc)
                .await
                .export(request)
                .await
                .map_or_else(|status| status.code(), |_| Code::Ok)
        });
        let expected = match status {
            200 => Code::Ok,
            401 => Code::Unauthenticated,
            _ => Code::PermissionDenied,
        };
        assert_eq!(code, expected, "gRPC with {name}");
    }
}

#[test]
fn otlp_71_an_upload_without_credentials_is_not_read() {
    use std::io::{Read as _, Write as _};
    let dir = tempfile::tempdir().expect("a directory");
    let (path, _) = tokens(dir.path());
    let server = TestServer::with(move |config| config.access.tokens = Some(path.clone()));
    let mut stream = std::net::TcpStream::connect(server.addresses.otlp_http).expect("the port answers");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: 60000000\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("it is sent");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("it answers although no byte of the body was sent");
    assert_eq!(&answer, b"HTTP/1.1 401");
}

#[test]
fn a_token_made_by_the_command_line_works_at_once_and_a_removed_one_no_longer() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("tokens.toml");
    let make = |name: &str, scopes: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_spandrel"));
        let output =
            command.args(["token", name, "--scopes", scopes, "--expires-in", "90d", "--file"]).arg(&path).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    let first = make("first", "query");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o600, "sec_24: for nobody else to read");
    let file = path.clone();
    let server = TestServer::with(move |config| config.access.tokens = Some(file.clone()));
    let url = format!("http://{}/spandrel/v1/services", server.addresses.http);
    let status = |token: &str| get(&url, &[("authorization", &format!("Bearer {token}"))]).status;
    assert_eq!(status(&first), 200);
    std::fs::remove_file(&path).expect("it is there");
    let second = make("second", "ingest,query");
    let deadline = Instant::now() + Duration::from_secs(20);
    while status(&second) != 200 {
        assert!(Instant::now() < deadline, "the changed file is read again");
    }
    assert_eq!(status(&first), 401);
    let cli = std::process::Command::new(env!("CARGO_BIN_EXE_spandrel"))
        .args(["services", "--url", &format!("http://{}", server.addresses.http)])
        .env("SPANDREL_TOKEN", &second)
        .output()
        .expect("it runs");
    assert!(cli.status.success(), "{}", String::from_utf8_lossy(&cli.stderr));
}

#[test]
fn sec_12_an_open_bind_without_tls_or_credentials_is_refused_unless_told_otherwise() {
    let open = RawConfig { otlp_http: Some("0.0.0.0:4318".to_owned()), ..RawConfig::default() };
    let tls = RawConfig { tls_cert: Some("c".into()), tls_key: Some("k".into()), ..RawConfig::default() };
    let tokens = RawConfig { tokens: Some("t".into()), ..RawConfig::default() };
    let clients = RawConfig { tls_client_ca: Some("ca".into()), ..tls.clone() };
    for (settings, missing) in [
        (RawConfig::default(), Some("without TLS and credentials")),
        (tls.clone(), Some("without credentials")),
        (tokens.clone(), Some("without TLS")),
        (tls.or(tokens), None),
        (clients, None),
        (RawConfig { allow_open_bind: Some(true), ..RawConfig::default() }, None),
    ] {
        let refused = open.clone().or(settings).resolve().err().map(|error| error.to_string());
        assert_eq!(refused.is_some(), missing.is_some(), "{refused:?}");
        assert!(refused.unwrap_or_default().contains(missing.unwrap_or_default()));
    }
}

fn cors(server: &TestServer, method: &str, origin: &str) -> Answer {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{}/v1/traces", server.addresses.otlp_http))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,x-page")
        .header("content-type", "application/json")
        .body("{}".to_owned())
        .expect("a request");
    let config = ureq::Agent::config_builder().http_status_as_error(false).allow_non_standard_methods(true).build();
    answer(ureq::Agent::from(config).run(request))
}

#[test]
fn otlp_51_bi_128_bi_129_pages_of_named_origins_may_send_and_no_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, tokens) = tokens(dir.path());
    let server = TestServer::with(move |config| {
        config.access.cors_origins = vec!["https://*.example".to_owned()];
        config.access.tokens = Some(path.clone());
    });
    let preflight = cors(&server, "OPTIONS", "https://shop.example");
    assert_eq!((preflight.status, preflight.body.len()), (204, 0), "no credentials are asked");
    assert_eq!(preflight.header("access-control-allow-origin"), "https://shop.example");
    assert_eq!(preflight.header("access-control-allow-methods"), "POST");
    assert_eq!(preflight.header("access-control-allow-headers"), "content-type,x-page");
    for origin in ["https://evil.test", "null"] {
        for method in ["OPTIONS", "POST"] {
            let refused = cors(&server, method, origin);
            assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, ""), "{method} {origin}");
        }
    }
    let url = format!("http://{}/v1/traces", server.addresses.otlp_http);
    let bearer = format!("Bearer {}", tokens[0].1);
    let headers =
        [("origin", "https://shop.example"), ("content-type", "application/json"), ("authorization", &bearer)];
    let sent = post(&url, &headers, b"{}");
    assert_eq!((sent.status, sent.header("access-control-expose-headers")), (200, "Retry-After"));
    assert_eq!(sent.header("access-control-allow-origin"), "https://shop.example");
}

#[test]
fn sec_14_without_the_setting_no_answer_has_a_cors_header() {
    let server = TestServer::new();
    let preflight = cors(&server, "OPTIONS", "https://shop.example");
    assert_eq!((preflight.status, preflight.header("allow")), (405, "POST"), "bi_107");
    let sent = cors(&server, "POST", "https://shop.example");
    assert_eq!((sent.status, sent.header("access-control-allow-origin")), (200, ""));
}
