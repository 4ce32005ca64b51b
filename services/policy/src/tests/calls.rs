use proto::answer::Answer;

use super::*;

fn site() -> Site {
    let mut site = Site::new();
    site.user(User { aliases: vec![address("info@example.org")], ..user("alice@example.org", None) });
    site.user(user("bob@example.org", None));
    site
}

#[tokio::test]
async fn connect_refuses_only_a_listener_that_is_gone() {
    let mut running = site().start().await;
    for (listener, refused) in [("mx", None), ("submission", None), ("gone", Some(421))] {
        let request = proto::ConnectRequest { session: Some(session(listener, "")) };
        let response = running.client.connect(request).await.unwrap().into_inner();
        assert_eq!(response.refuse.map(|reply| reply.code), refused, "{listener}");
        assert_eq!(response.snapshot_version, "v1");
    }
}

#[tokio::test]
async fn envelope_answers_each_recipient_in_order_with_its_destination() {
    let mut running = site().start().await;
    let request =
        envelope("mx", "", "", &["info+x@example.net", "nobody@example.org", "x@remote.example", "PostMaster"]);
    let response = running.client.envelope(request).await.unwrap().into_inner();
    let answers: Vec<String> = response.answers.iter().map(text).collect();
    assert_eq!(answers, ["alice@example.org", "550 5.1.1", "550 5.7.1", "postmaster@example.org"]);
    assert_eq!((response.snapshot_version.as_str(), response.decide), ("v1", false));
    let Some(Answer::Accepted(accepted)) = &response.answers[0].answer else { panic!() };
    assert_eq!((accepted.rule.as_str(), &*accepted.tags), ("mail for us", &["from-mx".to_owned()][..]));
    let destination = &accepted.destinations[0];
    assert_eq!((&*destination.transport, &*destination.route), ("dovecot", "dovecot"));
    assert_eq!((&*destination.delivered_to, destination.sender_rewritten), ("info+x@example.net", false));
}

#[tokio::test]
async fn what_is_not_an_address_is_the_callers_fault() {
    let mut running = site().start().await;
    let many: Vec<&str> = vec!["alice@example.org"; 1001];
    let mut bad_ip = envelope("mx", "", "", &[]);
    bad_ip.session.as_mut().unwrap().client_ip = "nowhere".to_owned();
    for request in [
        envelope("mx", "", "", &["two words"]),
        envelope("mx", "", "no-domain", &["alice@example.org"]),
        envelope("mx", "no-domain", "", &["alice@example.org"]),
        envelope("mx", "", "", &many),
        proto::EnvelopeRequest::default(),
        bad_ip,
    ] {
        let status = running.client.envelope(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
    assert_eq!(running.says(envelope("mx", "", "", &many[1..])).await.len(), 1000);
}

#[tokio::test]
async fn only_a_unix_peer_is_local_and_an_unknown_address_is_nothing() {
    let mut running = site().start().await;
    let cases = [
        (session("mx", ""), "550 5.7.1"),
        (proto::Session { client_ip: "127.0.0.1".into(), ..session("mx", "") }, "550 5.7.1"),
        (proto::Session { client_ip: String::new(), address_known: false, ..session("mx", "") }, "550 5.7.1"),
        (
            proto::Session {
                client_ip: String::new(),
                address_known: false,
                local_user: "root".into(),
                ..session("sendmail", "")
            },
            "x@remote.example",
        ),
        (proto::Session { client_ip: String::new(), ..session("sendmail", "") }, "x@remote.example"),
        (proto::Session { internal: true, ..proto::Session::default() }, "x@remote.example"),
    ];
    for (session, expected) in cases {
        let mut request = envelope("", "", "", &["x@remote.example"]);
        request.session = Some(session.clone());
        assert_eq!(running.says(request).await, [expected], "{session:?}");
    }
}

#[tokio::test]
async fn users_are_held_to_their_own_addresses_in_envelope_and_header() {
    let mut running = site().start().await;
    let forged =
        running.says(envelope("submission", "alice@example.org", "bob@example.org", &["x@remote.example"])).await;
    assert_eq!(forged, ["553 5.7.1"]);
    let unauthenticated = running.says(envelope("submission", "", "bob@example.org", &["x@remote.example"])).await;
    assert_eq!(unauthenticated, ["530 5.7.0"]);
    let request = envelope("submission", "alice@example.org", "info@example.org", &["x@remote.example"]);
    let response = running.client.envelope(request).await.unwrap().into_inner();
    assert!(response.decide, "the header must be shown");
    let cases = [
        ("From: Alice <alice@example.org>\r\n", true),
        ("Subject: x\r\nFrom: \"Bob\" <INFO+news@Example.Net>\r\n", true),
        ("From: alice@example.org, info@example.org\r\n", true),
        ("From: alice@example.org, bob@example.org\r\n", false),
        ("From: bob@example.org\r\n", false),
        ("From: \"alice@example.org\" <bob@example.org>\r\n", false),
        ("From: alice@example.org\r\nFrom: bob@example.org\r\n", false),
        ("From: alice@example.org\r\nSender: bob@example.org\r\n", false),
        ("From: alice@example.org\r\nSender: info@example.org\r\n", true),
        ("Subject: nobody\r\n", false),
        ("From: <alice@example.org>:<bob@example.org>\r\n", false),
    ];
    for (header, accepted) in cases {
        let decide = |user: &str, listener: &str| proto::DecideRequest {
            session: Some(session(listener, user)),
            answers: response.answers.clone(),
            header: header.as_bytes().to_vec().into(),
            ..proto::DecideRequest::default()
        };
        let answer = running.client.decide(decide("alice@example.org", "submission")).await.unwrap().into_inner();
        let refused = answer.refuse.as_ref().map(|reply| (reply.code, reply.enhanced_code.as_str()));
        assert_eq!(refused, (!accepted).then_some((550, "5.7.1")), "{header}");
        assert_eq!(answer.answers.len(), usize::from(accepted), "{header}");
        let stranger = running.client.decide(decide("", "mx")).await.unwrap().into_inner();
        assert_eq!((stranger.refuse, stranger.answers.len()), (None, 1), "strangers write as anybody: {header}");
    }
}

#[tokio::test]
async fn explain_answers_as_envelope_does_and_tells_why() {
    let snapshot = Arc::new(site().snapshot());
    let mut running = site().start().await;
    let request = envelope("mx", "", "carl@remote.example", &["info@example.org", "x@remote.example"]);
    let live = running.client.explain(request.clone()).await.unwrap().into_inner();
    let offline = crate::explain_offline(&snapshot, request.clone()).await.unwrap();
    assert_eq!(live, offline);
    assert_eq!(live.response, Some(running.client.envelope(request).await.unwrap().into_inner()));
    let story = |i: usize| -> Vec<String> {
        let steps = &live.stories[i].steps;
        steps.iter().map(|step| format!("{} {}: {}", step.rule, step.matched, step.reason)).collect()
    };
    assert_eq!(live.stories[0].recipient, "info@example.org");
    assert_eq!(
        story(0),
        [
            "mail for us true: recipient domain example.org is one of ours",
            "directory true: info@example.org is user alice@example.org",
            "answer true: accept: to alice@example.org by transport dovecot, route dovecot",
        ]
    );
    assert_eq!(
        story(1),
        [
            "mail for us false: recipient domain remote.example is not one of ours",
            "users false: session without authentication is not authenticated",
            "local false: client 192.0.2.9 is not local",
            "nothing matched true: no rule accepts it",
            "answer true: 550 5.7.1 relaying denied",
        ]
    );
    let by_alias = envelope("submission", "info@example.net", "alice@example.org", &["x@remote.example"]);
    let explained = crate::explain_offline(&snapshot, by_alias).await.unwrap();
    assert_eq!(text(&explained.response.unwrap().answers[0]), "x@remote.example");
}

#[tokio::test]
async fn a_new_snapshot_counts_from_the_next_call_on() {
    let mut running = Site::new().start().await;
    assert_eq!(running.says_to("alice@example.org").await, "550 5.1.1");
    running.node.snapshots().replace(site().snapshot());
    assert_eq!(running.says_to("alice@example.org").await, "alice@example.org");
}
