//! Programs that have people log in in their browser: where it may be sent, and who can use what it brings.

use super::*;

#[tokio::test]
async fn a_program_on_the_same_machine_gets_a_login_and_no_token_is_in_a_url() {
    let (app, provider) = lab().await;
    let program = Program::new();
    let mut browser = browser_of(&provider, "ann");
    let (back, page) = browser.go(&program.start(&app), PROGRAM).await;
    assert_eq!((page.status, page.text.as_str()), (303, ""));
    let brought = query(&back);
    assert_eq!(brought.len(), 1, "{back}");
    let answer = program.redeem(&app, &brought["code"]).await;
    let grant: AuthGrant = answer.data().unwrap();
    for secret in [&grant.access_token, &grant.refresh_token] {
        assert!(!back.contains(secret.as_str()));
    }
    let ann = Person::new(app.client(), grant);
    assert_eq!(ann.get("/v1/me").await.json["data"]["email"], "ann@example.com");
    // It is a login as any other.
    let rotated = app
        .client()
        .rest(
            "POST",
            "/v1/auth/refresh",
            None,
            Some(&json!({ "refreshToken": ann.grant.refresh_token })),
        )
        .await
        .unwrap();
    assert!(rotated.is_success(), "{rotated:?}");
    let logins = ann.get("/v1/auth/sessions").await.json["data"].clone();
    assert_eq!(logins.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn nothing_that_is_secret_of_a_login_is_kept_or_told() {
    let (app, provider) = lab().await;
    let admin = app.admin().await;
    let program = Program::new();
    let mut browser = browser_of(&provider, "ann");
    let begun = browser.open(&program.start(&app)).await;
    let there = query(begun.location.as_deref().unwrap());
    let (back, _) = browser.go(begun.location.as_deref().unwrap(), PROGRAM).await;
    let code = query(&back)["code"].clone();
    let grant: AuthGrant = program.redeem(&app, &code).await.data().unwrap();
    let cookie = begun.cookies[0].split(['=', ';']).nth(1).unwrap().to_owned();
    let secrets = [
        cookie,
        there["state"].clone(),
        there["nonce"].clone(),
        code,
        program.verifier.as_str().to_owned(),
        grant.refresh_token,
        "the secret of the client".to_owned(),
        // The token of the provider, and the code for it.
        "access-2".to_owned(),
        "code-1".to_owned(),
    ];
    let audit = admin.get("/v1/admin/audit").await.json.to_string();
    assert!(audit.contains("auth.register"));
    let mut texts = vec![audit];
    for entry in std::fs::read_dir(app.data_dir()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        texts.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    assert!(texts.iter().any(|text| text.contains("ann@example.com")));
    for secret in secrets {
        assert!(!texts.iter().any(|text| text.contains(&secret)), "{secret}");
    }
}

#[tokio::test]
async fn a14_a_code_is_good_once_and_for_whoever_began() {
    let (app, provider) = lab().await;
    let admin = app.admin().await;
    let (program, thief) = (Program::new(), Program::new());
    let refused = |answer: &RestAnswer| {
        let error = rest_refusal(answer);
        assert_eq!(code_of(&error), (ErrorCode::InvalidRequest, "invalid_code"), "{answer:?}");
    };
    let code = program.code(&app, &provider, "ann").await;
    assert!(program.redeem(&app, &code).await.is_success());
    refused(&program.redeem(&app, &code).await);

    let code = program.code(&app, &provider, "ann").await;
    refused(&thief.redeem(&app, &code).await);
    // A wrong guess was the last one.
    refused(&program.redeem(&app, &code).await);
    let challenge = program.verifier.challenge();
    for verifier in ["", "x", challenge.as_str(), &format!("{}=", program.verifier.as_str())] {
        let code = program.code(&app, &provider, "ann").await;
        refused(&redeem(&app, &code, verifier).await);
    }
    refused(&program.redeem(&app, "irt_none").await);
    refusals(&admin, "auth.oauth.redeem", "INVALID_REQUEST invalid_code", 8).await;
}

#[tokio::test]
async fn a_code_ends_with_all_logins_of_its_user() {
    let (app, provider) = lab().await;
    let program = Program::new();
    let ann = Person::new(app.client(), grant(&log_in(&app, &provider, "ann").await));
    let code = program.code(&app, &provider, "ann").await;
    let everywhere = ann.post("/v1/auth/logout", json!({ "everywhere": true })).await;
    assert!(everywhere.is_success(), "{everywhere:?}");
    let late = rest_refusal(&program.redeem(&app, &code).await);
    assert_eq!(code_of(&late), (ErrorCode::InvalidRequest, "invalid_code"));
    let code = program.code(&app, &provider, "ann").await;
    assert!(program.redeem(&app, &code).await.is_success());
}

#[tokio::test]
async fn a14_browsers_are_sent_only_where_somebody_allowed_it() {
    let allowed = ["https://app.example/in?tenant=1", "com.example.app:/in"];
    let oauth_redirects = allowed.map(str::to_owned).to_vec();
    let options = AppOptions { oauth_redirects, ..AppOptions::default() };
    let (app, provider) = lab_with(options).await;
    let challenge = Program::new().verifier.challenge();
    let open = async |fields: &[(&str, &str)]| Browser::default().open(&start(&app, fields)).await;
    for redirect in [
        "https://app.example/in",
        "https://app.example/in?tenant=2",
        "https://app.example/in?tenant=1&x=y",
        "https://app.example/in?tenant=1#x",
        "https://app.example.evil.example/in?tenant=1",
        "https://app.example@evil.example/in?tenant=1",
        "http://app.example/in?tenant=1",
        "HTTPS://app.example/in?tenant=1",
        "https://evil.example/",
        "//evil.example/",
        "javascript:alert(1)",
        "http://localhost:4000/callback",
        "http://127.0.0.1:4000/callback/../x",
        "http://127.0.0.1:4000/other",
        "com.example.app:/in/x",
        "",
    ] {
        let page = open(&[("redirect", redirect), ("codeChallenge", &challenge)]).await;
        let expected = (ErrorCode::InvalidRequest, "invalid_redirect".to_owned());
        assert_eq!(refused(&page), expected, "{redirect}");
        assert_eq!(page.location, None);
    }
    let program = |redirect: &str| Program { redirect: redirect.to_owned(), ..Program::new() };
    for redirect in
        [allowed[0], allowed[1], "http://127.0.0.1:65535/callback", "http://[::1]:1/callback"]
    {
        let program = program(redirect);
        let back = program.back(&mut browser_of(&provider, "ann"), &program.start(&app)).await;
        assert!(program.redeem(&app, &back["code"]).await.is_success(), "{redirect}");
        assert_eq!(back.contains_key("tenant"), redirect == allowed[0]);
    }
}

#[tokio::test]
async fn a14_no_place_without_a_challenge_and_no_other_method_than_s256() {
    let (app, _provider) = lab().await;
    let challenge = Program::new().verifier.challenge();
    let long = "a".repeat(44);
    for fields in [
        &[("redirect", PROGRAM)][..],
        &[("codeChallenge", challenge.as_str())],
        &[("redirect", PROGRAM), ("codeChallenge", "")],
        &[("redirect", PROGRAM), ("codeChallenge", "short")],
        &[("redirect", PROGRAM), ("codeChallenge", long.as_str())],
        &[
            ("redirect", PROGRAM),
            ("codeChallenge", challenge.as_str()),
            ("codeChallengeMethod", "plain"),
        ],
        &[("codeChallengeMethod", "plain")],
    ] {
        let page = Browser::default().open(&start(&app, fields)).await;
        let expected = (ErrorCode::InvalidRequest, "invalid_challenge".to_owned());
        assert_eq!(refused(&page), expected, "{fields:?}");
    }
    let fields = [
        ("redirect", PROGRAM),
        ("codeChallenge", challenge.as_str()),
        ("codeChallengeMethod", "S256"),
    ];
    assert_eq!(Browser::default().open(&start(&app, &fields)).await.status, 303);
}
