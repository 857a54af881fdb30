//! What is behind a link.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in any way")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hearth::config::{Config, Limit, UrlPreview};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Given, Reply, Server, each_backend,
    people::{Person, escaped},
    site::{Page, Site},
};

const PATH: &str = "/_matrix/client/v1/media/preview_url";
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// A server where anybody may register. It may reach one address of this machine, and look at what it has by some names.
fn looking(config: &mut Config) {
    config.registration.allow_registration = true;
    config.registration.yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse = true;
    config.outgoing.outgoing_allowlist = vec!["127.0.0.1".parse().unwrap()];
    config.url_preview = UrlPreview {
        url_preview_domain_explicit_allowlist: vec!["127.0.0.1".into(), "127.0.0.2".into()],
        url_preview_timeout_s: 5,
        ..UrlPreview::default()
    };
}

async fn looking_server(given: &Given) -> Server {
    given.server_with(looking).await
}

impl Person {
    async fn looks_at(&self, url: &str) -> Reply {
        let path = format!("{PATH}?url={}", escaped(url));
        self.http().send(self.http().request(Method::GET, &path).bearer_auth(&self.token)).await
    }

    /// Is shown this beside a link.
    async fn is_shown(&self, url: &str, told: &Value) {
        assert_eq!(self.looks_at(url).await.ok(), *told, "{url}");
    }
}

each_backend! {
    async fn a_page_says_what_it_is(given: Given) {
        let server = looking_server(given).await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        site.has("/graph", r#"<!doctype html><html><head>
            <meta property="og:title" content="Caf&eacute; &amp; more"><meta property="og:site_name" content="Example">
            <meta property="og:description" content="&#8220;Words&#8221;"><meta property="og:image" content="/no.png">
            <meta property="og:video:width" content="640"></head><body>Text</body></html>"#);
        let told = json!({
            "og:title": "Café & more", "og:site_name": "Example", "og:description": "“Words”", "og:video:width": 640,
        });
        alice.is_shown(&site.url("/graph"), &told).await;

        site.has("/title", "<title>Just a title</title><nav>Menu</nav><p>And some words.");
        let told = json!({ "og:title": "Just a title", "og:description": "And some words." });
        alice.is_shown(&site.url("/title"), &told).await;

        let japan = b"<html><head><title>\x93\xfa\x96\x7b</title>";
        site.has_a("text/html; charset=Shift_JIS", "/said", *japan);
        site.has("/says", [b"<meta charset=\"shift_jis\">".as_slice(), japan].concat());
        for path in ["/said", "/says"] {
            alice.is_shown(&site.url(path), &json!({ "og:title": "日本" })).await;
        }
        site.has("/empty", "");
        alice.is_shown(&site.url("/empty"), &json!({})).await;
        server.stop().await;
    }

    async fn what_is_no_page_is_called_by_its_name(given: Given) {
        let server = looking_server(given).await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        site.has_a("text/plain; charset=utf-8", "/notes.txt", "  One\n\n\n two  three");
        let told = json!({ "og:title": "notes.txt", "og:description": "One\ntwo three" });
        alice.is_shown(&site.url("/notes.txt"), &told).await;
        site.has_a("application/pdf", "/my%20thesis.pdf?v=2", "%PDF");
        alice.is_shown(&site.url("/my%20thesis.pdf?v=2"), &json!({ "og:title": "my thesis.pdf" })).await;
        site.has_a("image/png", "/cat.png", "not looked at");
        alice.is_shown(&site.url("/cat.png"), &json!({ "og:title": "cat.png" })).await;
        site.has_a("image/svg+xml", "/", "<svg><script>");
        alice.is_shown(&site.url("/"), &json!({})).await;
        server.stop().await;
    }

    async fn cve_2022_41952_what_has_no_end_is_not_waited_for(given: Given) {
        let server = given
            .server_with(|config| {
                looking(config);
                config.url_preview.url_preview_timeout_s = 60;
            })
            .await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        let begun = Instant::now();
        for (content_type, path) in [("video/mp4", "/film.mp4"), ("audio/ogg", "/radio.ogg"), ("text/event-stream", "/news")] {
            site.shows(path, Page::Endless { content_type, begins: "" });
            alice.is_shown(&site.url(path), &json!({ "og:title": path[1..] })).await;
        }
        site.shows("/page", Page::Endless { content_type: "text/html", begins: "<title>It goes on</title>" });
        alice.is_shown(&site.url("/page"), &json!({ "og:title": "It goes on" })).await;
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        server.stop().await;
    }

    async fn of_a_large_page_its_beginning_is_read(given: Given) {
        let server = given
            .server_with(|config| {
                looking(config);
                config.url_preview.url_preview_max_spider_size = 10_000;
            })
            .await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        let long = |spaces: usize| format!("<title>Long</title>{}<meta property=og:type content=far>", " ".repeat(spaces));
        site.has("/large", long(9_900));
        site.has("/larger", long(10_000));
        alice.is_shown(&site.url("/large"), &json!({ "og:title": "Long", "og:type": "far" })).await;
        alice.is_shown(&site.url("/larger"), &json!({ "og:title": "Long" })).await;
        server.stop().await;
    }

    async fn what_gives_no_answer_is_told_as_one_thing(given: Given) {
        let server = given
            .server_with(|config| {
                looking(config);
                config.url_preview.url_preview_timeout_s = 1;
            })
            .await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        site.shows("/silent", Page::Silent);
        site.shows("/to-silence", Page::To("/silent".into()));
        site.shows("/broken", Page::Fails(500));
        let mut said = Vec::new();
        for url in [
            site.url("/silent"),
            site.url("/to-silence"),
            site.url("/broken"),
            site.url("/nowhere"),
            "http://127.0.0.1:1/".to_owned(),
        ] {
            said.push(alice.looks_at(&url).await.refused(502, "M_UNKNOWN"));
        }
        said.dedup();
        assert_eq!(said.len(), 1, "{said:?}");
        // What failed is left alone for a while.
        alice.looks_at(&site.url("/broken")).await.refused(502, "M_UNKNOWN");
        assert_eq!(site.looks_at("/broken"), 1);
        site.has("/broken", "<title>Mended</title>");
        server.clock.advance(5 * 60 * 1_000);
        alice.is_shown(&site.url("/broken"), &json!({ "og:title": "Mended" })).await;
        server.stop().await;
    }

    async fn a_redirection_leads_to_what_is_allowed(given: Given) {
        let server = looking_server(given).await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        let inside = Site::start_at([127, 0, 0, 2].into()).await;
        site.has("/end", "<title>The end</title>");
        inside.has("/end", "<title>A secret</title>");
        for n in 1..=6 {
            site.shows(&format!("/{n}"), Page::To(if n == 1 { "/end#part".into() } else { format!("/{}", n - 1) }));
        }
        for (path, to) in [
            // To a name that is not allowed, also on the way; and to an address that may not be reached.
            ("/elsewhere", site.url_by("localhost", "/end")),
            ("/by-elsewhere", site.url_by("localhost", "/1")),
            ("/inside", inside.url("/end")),
            ("/mapped", inside.url_by("[::ffff:127.0.0.2]", "/end")),
            ("/round", "/round".to_owned()),
            ("/file", "file:///etc/passwd".to_owned()),
            ("/owned", site.url_by("a:b@127.0.0.1", "/end")),
        ] {
            site.shows(path, Page::To(to));
            alice.looks_at(&site.url(path)).await.refused(502, "M_UNKNOWN");
        }
        assert_eq!((site.looks_at("/end"), site.looks_at("/1"), inside.looks()), (0, 0, 0));
        alice.is_shown(&site.url("/5"), &json!({ "og:title": "The end" })).await;
        alice.looks_at(&site.url("/6")).await.refused(502, "M_UNKNOWN");
        server.stop().await;
    }

    async fn oembed_says_what_the_page_does_not(given: Given) {
        let server = given
            .server_with(|config| {
                looking(config);
                config.url_preview.url_preview_domain_explicit_denylist = vec!["localhost".into()];
            })
            .await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        let inside = Site::start_at([127, 0, 0, 2].into()).await;
        let page = |href: &str| {
            let href = href.replace('&', "&amp;");
            format!("<title>Page</title><link rel=alternate type='application/json+oembed' href='{href}'>")
        };
        let said = json!({ "type": "video", "title": "A &quot;film&quot;", "provider_name": "Films", "height": 480 });
        site.has_a("application/json", "/oembed?a=1&b=2", said.to_string());
        site.has("/film", page("/oembed?a=1&b=2"));
        let told = json!({
            "og:title": "A \"film\"", "og:site_name": "Films", "og:type": "video.other", "og:video:height": 480,
        });
        alice.is_shown(&site.url("/film"), &told).await;

        // The page is told all the same where it leads to nothing, or to what may not be looked at.
        inside.has_a("application/json", "/oembed", said.to_string());
        site.has_a("text/html", "/html", said.to_string());
        site.has_a("application/json", "/broken", "{");
        site.shows("/to-denied", Page::To(site.url_by("localhost", "/oembed?a=1&b=2")));
        site.shows("/endless", Page::Endless { content_type: "application/json", begins: "{}" });
        for (n, href) in [
            inside.url("/oembed"),
            site.url_by("localhost", "/oembed?a=1&b=2"),
            "/to-denied".into(),
            "/nowhere".into(),
            "/html".into(),
            "/broken".into(),
            "/endless".into(),
            "file:///etc/passwd".into(),
        ]
        .iter()
        .enumerate()
        {
            let path = format!("/{n}");
            site.has(&path, page(href));
            alice.is_shown(&site.url(&path), &json!({ "og:title": "Page" })).await;
        }
        assert_eq!((inside.looks(), site.looks_at("/oembed?a=1&b=2"), site.looks_at("/to-denied")), (0, 1, 1));
        server.stop().await;
    }

    async fn only_what_the_operator_allows_is_looked_at(given: Given) {
        let server = given
            .server_with(|config| {
                looking(config);
                config.url_preview.url_preview_url_contains_allowlist = vec!["/public/".into()];
                config.url_preview.url_preview_domain_explicit_denylist = vec!["denied.example".into()];
            })
            .await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        site.has("/public/page", "<title>Public</title>");
        let by_name = site.url_by("localhost", "/public/page");
        alice.is_shown(&by_name, &json!({ "og:title": "Public" })).await;
        let looks = site.looks();
        for url in [
            site.url_by("localhost", "/private"),
            "https://example.org/".into(),
            "https://denied.example/public/".into(),
            // Allowed by its name, but not to be reached.
            "http://127.0.0.2/".into(),
        ] {
            alice.looks_at(&url).await.refused(403, "M_FORBIDDEN");
        }
        for url in ["", "page", "//127.0.0.1/", "ftp://127.0.0.1/", "data:text/html,x", "http://a:b@127.0.0.1/", "http://"] {
            alice.looks_at(url).await.refused(400, "M_INVALID_PARAM");
        }
        let long = |bytes: usize| site.url(&format!("/{}", "a".repeat(bytes - site.url("/").len())));
        alice.looks_at(&long(2_048)).await.refused(502, "M_UNKNOWN");
        alice.looks_at(&long(2_049)).await.refused(400, "M_INVALID_PARAM");
        let request = server.request(Method::GET, PATH).bearer_auth(&alice.token);
        server.send(request).await.refused(400, "M_MISSING_PARAM");
        server.get(&format!("{PATH}?url={}", escaped(&by_name))).await.refused(401, "M_MISSING_TOKEN");
        assert_eq!(site.looks(), looks + 1);
        server.stop().await;
    }

    async fn cve_2023_32683_and_cve_2021_21392_what_is_inside_is_not_looked_at(given: Given) {
        let server = given
            .server_with(|config| {
                looking(config);
                config.outgoing.outgoing_allowlist.clear();
                config.url_preview.url_preview_domain_contains_allowlist = vec!["*".into()];
            })
            .await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        site.has("/", "<title>A secret</title>");
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.1.",
            "0.0.0.0",
            "0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "１２７.0.0.1",
            "169.254.169.254",
            "10.0.0.1",
        ] {
            alice.looks_at(&site.url_by(host, "/")).await.refused(403, "M_FORBIDDEN");
        }
        // Where a name leads is found out when somebody goes there, and told as if nobody answered.
        let inside = alice.looks_at(&site.url_by("localhost", "/")).await.refused(502, "M_UNKNOWN");
        let nobody = alice.looks_at("http://nobody.invalid/").await.refused(502, "M_UNKNOWN");
        assert_eq!((inside, site.looks()), (nobody, 0));
        server.stop().await;
    }

    async fn cve_2022_31052_a_page_may_be_as_deep_as_it_likes(given: Given) {
        let server = looking_server(given).await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        let deep = format!("<title>Deep</title>{}", "<div><b><svg>".repeat(70_000));
        site.has("/deep", deep);
        alice.is_shown(&site.url("/deep"), &json!({ "og:title": "Deep" })).await;
        server.stop().await;
    }

    async fn however_many_ask_there_is_one_look(given: Given) {
        let server = looking_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let site = Site::start().await;
        site.has("/page", "<title>Once</title>");
        let url = site.url("/page");
        let asked = (0..50).flat_map(|_| [&alice, &bob]).map(|person| person.looks_at(&url));
        for reply in join_all(asked).await {
            assert_eq!(reply.ok(), json!({ "og:title": "Once" }));
        }
        alice.looks_at(&format!("{url}#part")).await.ok();
        assert_eq!(site.looks(), 1);

        // It is good for a day, after a restart, too.
        site.has("/page", "<title>Twice</title>");
        server.clock.advance(DAY_MS - 1);
        bob.is_shown(&url, &json!({ "og:title": "Once" })).await;
        server.stop().await;
        let server = looking_server(given).await;
        let bob = Person::logs_in(&server, "bob").await;
        server.clock.advance(DAY_MS - 1);
        bob.is_shown(&url, &json!({ "og:title": "Once" })).await;
        assert_eq!(site.looks(), 1);
        server.clock.advance(1);
        bob.is_shown(&url, &json!({ "og:title": "Twice" })).await;
        assert_eq!(site.looks(), 2);
        server.stop().await;
    }

    async fn who_goes_away_takes_the_look_from_nobody(given: Given) {
        let server = looking_server(given).await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        site.shows("/page", Page::Silent);
        let url = site.url("/page");
        let given_up = tokio::time::timeout(Duration::from_millis(200), alice.looks_at(&url)).await;
        assert!(given_up.is_err());
        alice.looks_at(&url).await.refused(502, "M_UNKNOWN");
        assert_eq!(site.looks(), 1);
        // A server that stops doesn't wait for it.
        site.shows("/other", Page::Silent);
        let other = site.url("/other");
        let stop = async {
            while site.looks_at("/other") == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert!(server.stop().await);
        };
        let (reply, ()) = tokio::join!(alice.looks_at(&other), stop);
        reply.refused(503, "M_UNKNOWN");
    }

    async fn links_are_looked_at_so_often(given: Given) {
        let server = given
            .server_with(|config| {
                looking(config);
                config.limits.rate_limit.enabled = true;
                config.limits.rate_limit.url_preview = Limit::of(1.0, 2);
            })
            .await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        site.has("/page", "<title>A page</title>");
        for _ in 0..2 {
            alice.looks_at(&site.url("/page")).await.ok();
        }
        assert_eq!(alice.looks_at(&site.url("/page")).await.refused(429, "M_LIMIT_EXCEEDED")["retry_after_ms"], 1_000);
        server.clock.advance(1_000);
        alice.looks_at(&site.url("/page")).await.ok();
        server.stop().await;
    }

    async fn where_nothing_is_allowed_there_is_no_such_endpoint(given: Given) {
        let server = given
            .server_with(|config| {
                looking(config);
                config.url_preview = UrlPreview {
                    url_preview_domain_explicit_denylist: vec!["denied.example".into()],
                    ..UrlPreview::default()
                };
            })
            .await;
        let (alice, site) = (Person::registers(&server, "alice").await, Site::start().await);
        alice.looks_at(&site.url("/")).await.refused(404, "M_UNRECOGNIZED");
        assert_eq!(site.looks(), 0);
        server.stop().await;
    }
}
