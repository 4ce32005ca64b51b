//! TLS and AUTH.

use super::*;

/// base64 of NUL alice NUL secret.
const ALICE: &str = "AGFsaWNlAHNlY3JldA==";

#[tokio::test]
async fn a_user_submits_with_starttls_and_a_password() {
    let (snapshot, chain) = with_certificate(snapshot(vec![submission("submission")]));
    let site = Site::start_with(snapshot).await;
    let mut client = site.connect("submission").await;
    let offer = client.command("EHLO client", "250-").await;
    assert!(offer.contains("STARTTLS") && !offer.contains("AUTH"), "{offer}");
    client.command("MAIL FROM:<alice@example.org>", "530").await;
    client.command("STARTTLS", "220").await;
    let mut client = client.tls(&chain).await.unwrap();
    let offer = client.command("EHLO client", "250-").await;
    assert!(!offer.contains("STARTTLS") && offer.contains("AUTH"), "{offer}");
    client.command("AUTH PLAIN AHRyb3VibGUAeA==", "454 4.7.0").await;
    client.command("AUTH PLAIN AGFsaWNlAHg=", "535 5.7.8").await;
    client.command(&format!("AUTH PLAIN {ALICE}"), "235").await;
    let reply = client.message(&["bob@example.net"], "From: alice@example.org\r\n\r\nx").await;
    assert!(reply.starts_with("250"), "{reply}");

    let envelope = site.policy.envelopes.lock().unwrap().pop().unwrap();
    let session = envelope.session.unwrap();
    assert_eq!(
        (session.user.as_str(), session.tls, session.listener.as_str()),
        ("alice@example.org", true, "submission")
    );
    let stored = site.queue.only();
    let header = stored.header();
    assert!(header.contains(" with ESMTPSA (TLSv1.3 TLS_"), "{header}");
    assert!(
        header.contains(&format!("\r\nMessage-ID: <{}@mx1.example.org>\r\n", stored.commit.message_id)),
        "{header}"
    );
    assert!(header.contains("\r\nDate: "), "{header}");
    assert_eq!(stored.commit.header_message_id, format!("<{}@mx1.example.org>", stored.commit.message_id));
    let origin = stored.commit.origin.unwrap();
    assert_eq!(origin.user, "alice@example.org");
    assert!(origin.tls.starts_with("TLSv1.3 TLS_"), "{}", origin.tls);
}

#[tokio::test]
async fn the_address_of_a_submitting_client_can_be_left_out() {
    let mut listener = submission("submission");
    listener.received_client = false;
    listener.tls.mode = TlsMode::Implicit;
    let (snapshot, chain) = with_certificate(snapshot(vec![listener]));
    let site = Site::start_with(snapshot).await;
    let mut client = Client::connect(&site.address("submission")).await.tls(&chain).await.unwrap();
    client.expect("220").await;
    client.command("EHLO laptop.home.example", "250-").await;
    client.command(&format!("AUTH PLAIN {ALICE}"), "235").await;
    client.message(&["bob@example.net"], "\r\nx").await;
    let header = site.queue.only().header();
    assert!(header.starts_with("Received: by mx1.example.org with ESMTPSA"), "{header}");
    assert!(!header.contains("127.0.0.1") && !header.contains("laptop"), "{header}");
}

#[tokio::test]
async fn bytes_behind_starttls_never_reach_the_session() {
    let (snapshot, _) = with_certificate(snapshot(vec![with_tls(listener("mx"), TlsMode::Opportunistic, "cert")]));
    let site = Site::start_with(snapshot).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client", "250-").await;
    client.send("STARTTLS\r\nRSET\r\nMAIL FROM:<x@y.org>\r\n").await;
    client.expect("5").await;
    client.expect_end().await;
}

#[tokio::test]
async fn a_new_certificate_serves_new_handshakes_and_old_sessions_live_on() {
    let listeners = || vec![with_tls(listener("mx"), TlsMode::Opportunistic, "cert")];
    let (first, first_chain) = with_certificate(snapshot(listeners()));
    let site = Site::start_with(first).await;
    let address = site.address("mx");
    let mut old = site.connect("mx").await;
    old.command("EHLO client", "250-").await;
    old.command("STARTTLS", "220").await;
    let mut old = old.tls(&first_chain).await.unwrap();
    old.command("EHLO client", "250-").await;

    let (second, second_chain) = with_certificate(snapshot(listeners()));
    site.node.snapshots().replace(second);
    let swapped = async {
        loop {
            let mut client = site.connect("mx").await;
            client.command("EHLO client", "250-").await;
            client.command("STARTTLS", "220").await;
            if client.tls(&second_chain).await.is_ok() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, swapped).await.unwrap();
    assert_eq!(site.address("mx"), address);
    old.command("NOOP", "250").await;
}

#[tokio::test]
async fn a_broken_certificate_stops_a_start_and_leaves_a_running_listener_as_it_is() {
    let broken = || {
        let (mut broken, _) = with_certificate(snapshot(vec![submission("submission")]));
        let certificate = Certificate { chain_pem: b"nothing".to_vec(), key_pem: Vec::new() };
        broken.certificates.insert("cert".to_owned(), Arc::new(certificate));
        broken
    };
    let site = Site::prepare(broken());
    let fault = crate::start(&site.node).await.unwrap_err().to_string();
    assert!(fault.contains("listener submission: secret cert:"), "{fault}");

    let (good, chain) = with_certificate(snapshot(vec![submission("submission")]));
    let site = Site::start_with(good).await;
    site.reload(broken(), |site| matches!(site.node.health().parts()["listeners"], node::Part::Degraded(_))).await;
    let mut client = site.connect("submission").await;
    client.command("EHLO client", "250-").await;
    client.command("STARTTLS", "220").await;
    client.tls(&chain).await.unwrap();
}

#[tokio::test]
async fn our_own_certificate_serves_where_no_secret_is_named() {
    let mut mx = listener("mx");
    mx.tls.mode = TlsMode::Implicit;
    mx.tls.self_signed = true;
    mx.hostname = domain("localhost");
    let site = Site::start(vec![mx]).await;
    let chain = std::fs::read(site.dir.path().join("tls/self-signed-localhost.crt")).unwrap();
    let mut client = Client::connect(&site.address("mx")).await.tls(&chain).await.unwrap();
    client.expect("220").await;
}

#[tokio::test]
async fn a_stalled_handshake_is_closed() {
    let mut mx = with_tls(listener("mx"), TlsMode::Implicit, "cert");
    mx.limits.handshake_timeout = Duration::from_millis(100);
    let (snapshot, _) = with_certificate(snapshot(vec![mx]));
    let site = Site::start_with(snapshot).await;
    Client::connect(&site.address("mx")).await.expect_end().await;
}

/// A certificate of a client, signed by its own key.
fn client_certificate(name: &str) -> Certificate {
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    Certificate { chain_pem: certificate.pem().into_bytes(), key_pem: key.serialize_pem().into_bytes() }
}

#[tokio::test]
async fn certificates_of_clients_are_optional_or_required_and_always_verified() {
    let (known, stranger) = (client_certificate("relay-7"), client_certificate("relay-7"));
    let checked = |name: &str, client_certificates| {
        let mut listener = with_tls(listener(name), TlsMode::Implicit, "cert");
        listener.tls.client_certificates = client_certificates;
        listener.tls.client_authorities = Some(known.chain_pem.clone().into());
        listener
    };
    let listeners =
        vec![checked("optional", ClientCertificates::Optional), checked("required", ClientCertificates::Required)];
    let (snapshot, chain) = with_certificate(snapshot(listeners));
    let site = Site::start_with(snapshot).await;
    for (listener, identity, expected) in [
        ("optional", None, Some("")),
        ("optional", Some(&known), Some("CN=relay-7")),
        ("optional", Some(&stranger), None),
        ("required", None, None),
        ("required", Some(&known), Some("CN=relay-7")),
        ("required", Some(&stranger), None),
    ] {
        let client = Client::connect(&site.address(listener)).await;
        let client = client.tls_as(&chain, identity, rustls::DEFAULT_VERSIONS).await;
        let Some(expected) = expected else {
            // With TLS 1.3 the client learns of it when it reads.
            if let Ok(mut client) = client {
                client.expect_end().await;
            }
            continue;
        };
        let mut client = client.unwrap();
        client.expect("220").await;
        client.command("EHLO client", "250-").await;
        client.begin(&["bob@example.net"]).await;
        let envelope = site.policy.envelopes.lock().unwrap().pop().unwrap();
        assert_eq!(envelope.session.unwrap().client_certificate, expected, "{listener}");
    }
}

#[tokio::test]
async fn no_version_of_tls_below_the_lowest_is_spoken() {
    use rustls::version::{TLS12, TLS13};
    let lowest = |name: &str, version_min| {
        let mut listener = with_tls(listener(name), TlsMode::Implicit, "cert");
        listener.tls.version_min = version_min;
        listener
    };
    let listeners = vec![lowest("old", TlsVersion::V1_2), lowest("new", TlsVersion::V1_3)];
    let (snapshot, chain) = with_certificate(snapshot(listeners));
    let site = Site::start_with(snapshot).await;
    for (listener, version, expected) in [
        ("old", &TLS12, Some("(TLSv1.2 ")),
        ("old", &TLS13, Some("(TLSv1.3 ")),
        ("new", &TLS12, None),
        ("new", &TLS13, Some("(TLSv1.3 ")),
    ] {
        let client = Client::connect(&site.address(listener)).await.tls_as(&chain, None, &[version]).await;
        let Some(expected) = expected else {
            assert!(client.is_err(), "{listener} speaks {version:?}");
            continue;
        };
        let mut client = client.unwrap();
        client.expect("220").await;
        client.command("EHLO client", "250-").await;
        client.message(&["bob@example.net"], "\r\nx").await;
        let header = site.queue.stored.lock().unwrap().pop().unwrap().header();
        assert!(header.contains(expected), "{listener}: {header}");
    }
}
