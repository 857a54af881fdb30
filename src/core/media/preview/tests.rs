use serde_json::json;

use super::*;

fn url() -> Url {
    "https://example.org/articles/one?x=1".parse().expect("a URL")
}

fn read_page(html: &str) -> Page {
    page(html.as_bytes(), None, &url())
}

fn told(html: &str) -> Told {
    read_page(html).told(None)
}

fn said(html: &str) -> Value {
    Value::Object(told(html).said)
}

fn picture(html: &str) -> Option<String> {
    told(html).picture.map(|picture| picture.url.into())
}

#[test]
fn a_page_says_what_it_is_in_open_graph() {
    let told = told(
        r#"<!doctype html><html><head><title>Not this</title>
        <meta property="og:title" content="Caf&eacute; &amp; more">
        <meta property='OG:Description' content='One
          line'>
        <meta name=og:site_name content=Example>
        <meta property="og:type" content="article"/>
        <meta property="og:url" content="/articles/one">
        <meta property="og:image" content="../a.png?x=1&amp;y=2">
        <meta property="og:image" content="/second.png">
        <meta property="og:image:width" content="640">
        <meta property="og:image:alt" content="A &quot;caf&eacute;&quot;">
        <meta property="og:video:secure_url" content="https://video.example/v">
        <meta property="og:video:width" content="1280">
        <meta property="og:video:height" content="tall">
        <meta property="og:audio" content="javascript:alert(1)">
        <meta property="article:author" content="Alice">
        <meta property="og:title" content="Second">
        <meta name="description" content="Not this either">"#,
    );
    let expected = json!({
        "og:title": "Café & more", "og:description": "One\nline", "og:site_name": "Example", "og:type": "article",
        "og:url": "https://example.org/articles/one", "og:video:secure_url": "https://video.example/v",
        "og:video:width": 1280, "article:author": "Alice",
    });
    assert_eq!(Value::Object(told.said), expected);
    let picture = told.picture.expect("a picture");
    assert_eq!(picture.url.as_str(), "https://example.org/a.png?x=1&y=2");
    assert_eq!(picture.alt.as_deref(), Some("A \"café\""));
}

#[test]
fn cards_say_what_open_graph_does_not() {
    let html = r#"<meta name="twitter:title" content="Card"><meta property="og:title" content="Graph">
        <meta name="twitter:description" content="Words"><meta name="twitter:image:src" content="/card.png">
        <meta name="twitter:card" content="summary"><meta name="twitter:site" content="@example">"#;
    assert_eq!(said(html), json!({ "og:title": "Graph", "og:description": "Words", "og:site_name": "@example" }));
    assert_eq!(picture(html).as_deref(), Some("https://example.org/card.png"));
}

#[test]
fn a_page_that_says_nothing_is_called_by_its_title() {
    assert_eq!(
        said("<title>\n A &lt;b&gt; page\n</title><meta name=Description content='What it is.'><p>Text"),
        json!({ "og:title": "A <b> page", "og:description": "What it is." })
    );
    assert_eq!(said("<title></title><title>Second</title>"), json!({ "og:title": "Second" }));
    assert_eq!(said("<svg><title>Icon</title></svg>"), json!({}));
    assert_eq!(said("<textarea>No title</textarea>"), json!({}));
    assert_eq!(said("<title>Not over"), json!({ "og:title": "Not over" }));
    assert_eq!(said(""), json!({}));
}

#[test]
fn a_description_may_be_its_first_words() {
    let html = "<body><header>Menu</header><nav><ul><li>Home</ul></nav><script>let x = '<p>code</p>';</script>
        <style>p { color: red }</style><h1>Head&shy;line</h1><p>First   <b>par</b>agraph.</p><div>Second.</div>
        <svg><text>Icon</text></svg><!-- no --><footer>Imprint</footer></body>";
    assert_eq!(said(html)["og:description"], "Headline\nFirst paragraph.\nSecond.");
    let long = format!("<p>{}", "word ".repeat(9_000));
    let excerpt = said(&long)["og:description"].as_str().expect("a description").to_owned();
    assert!(excerpt.ends_with("word…") && excerpt.chars().count() <= LONGEST_EXCERPT, "{excerpt}");
}

#[test]
fn a_picture_may_be_the_one_that_is_large() {
    for (html, found) in [
        (
            "<img src=/a.png><img src=/b.png width=300 height=200><img src=/c.png width=200px height=200>",
            Some("/b.png"),
        ),
        (
            "<img src=/pixel.gif width=1 height=1><img src='data:image/png;base64,AA'><img src=a.png>",
            Some("/articles/a.png"),
        ),
        ("<header><img src=/logo.png></header>", None),
        ("<img src=/a.png><meta itemprop=image content=/meta.png>", Some("/meta.png")),
        ("<base href='https://cdn.example/x/'><img src=a.png>", Some("https://cdn.example/x/a.png")),
        ("<base href='/b/'><base href='/c/'><img src=a.png>", Some("/b/a.png")),
        ("<base href='data:x'><img src=a.png>", Some("/articles/a.png")),
        ("<img src='//other.example/a.png'>", Some("https://other.example/a.png")),
        ("<img src='http://a:b@other.example/a.png'>", None),
        ("<img src='file:///etc/passwd'>", None),
        ("<meta property=og:image content='ftp://x.example/a.png'><img src=a.png>", Some("/articles/a.png")),
    ] {
        let found = found.map(|found| url().join(found).expect("a URL").to_string());
        assert_eq!(picture(html), found, "{html}");
    }
}

#[test]
fn what_is_too_long_is_cut_and_what_is_too_many_is_left() {
    let title = "t".repeat(9_999);
    assert_eq!(said(&format!("<title>{title}</title>"))["og:title"].as_str().map(|t| t.chars().count()), Some(300));
    let long = said(&format!("<meta property=og:title content={title}><meta property=og:description content={title}>"));
    assert_eq!(long["og:title"].as_str().map(|t| t.chars().count()), Some(LONGEST_TITLE));
    assert_eq!(long["og:description"].as_str().map(|t| t.chars().count()), Some(LONGEST_DESCRIPTION));
    let many: String = (0..1_000).map(|n| format!("<meta property=og:x{n} content={title}>")).collect();
    let many = said(&many);
    assert!(many.as_object().is_some_and(|all| (10..=50).contains(&all.len())) && many.to_string().len() < 20_000);
    let name = "x".repeat(60);
    assert_eq!(said(&format!("<meta property=og:{name} content=a><meta property='og:\u{e9}' content=a>")), json!({}));
    let address = "a".repeat(LONGEST_URL);
    assert_eq!(picture(&format!("<img src=/{address}>")), None);
}

#[test]
fn cve_2022_31052_depth_is_no_trouble() {
    let deep = "<div><p><b><svg><g>".repeat(50_000);
    let html = format!("<meta property=og:title content=Deep>{deep}<meta property=og:type content=far>");
    assert_eq!(said(&html)["og:title"], "Deep");
    let attributes = |many: u32| (0..many).map(|n| format!(" a{n}=\"{n}\"")).collect::<String>();
    assert_eq!(said(&format!("<p{}>x</p><title>Wide</title>", attributes(1_000)))["og:title"], "Wide");
    let beyond = said(&format!("<title>Before</title><p{}>x</p><meta property=og:type content=x>", attributes(50_000)));
    assert_eq!(beyond["og:title"], "Before");
    for open in ["<nav>", "<select>", "<table>", "<template>", "<math><mtext>", "<!--", "<![CDATA[", "<a href='"] {
        said(&open.repeat(50_000));
    }
}

const OEMBED: &str = r#"<link rel="alternate" type="application/json+oembed" href="/oembed?a=1&amp;b=2">"#;

fn embedded(page: &str, oembed: &Value) -> Told {
    let embed = super::oembed(oembed.to_string().as_bytes(), &url());
    assert!(embed.is_some());
    read_page(page).told(embed)
}

#[test]
fn a_page_says_where_its_oembed_is() {
    let oembed = |html: &str| read_page(html).oembed().map(Url::to_string);
    assert_eq!(oembed(OEMBED).as_deref(), Some("https://example.org/oembed?a=1&b=2"));
    assert_eq!(
        oembed("<link rel=alternative type=application/json+oembed href=x>").as_deref(),
        Some("https://example.org/articles/x")
    );
    for none in [
        "<link rel=alternate type=application/xml+oembed href=/x>",
        "<link rel=stylesheet type=application/json+oembed href=/x>",
        "<link rel=alternate type=application/json+oembed>",
        "<link rel=alternate type=application/json+oembed href='file:///etc/passwd'>",
    ] {
        assert_eq!(oembed(none), None, "{none}");
    }
}

#[test]
fn oembed_says_what_the_page_does_not() {
    let photo = json!({
        "version": "1.0", "type": "photo", "title": "A &amp; B", "author_name": "Alice", "provider_name": "Photos",
        "url": "https://cdn.example/large.jpg", "thumbnail_url": "https://cdn.example/small.jpg",
    });
    let told = embedded("<title>Photos</title>", &photo);
    assert_eq!(Value::Object(told.said), json!({ "og:title": "A & B", "og:site_name": "Photos" }));
    assert_eq!(told.picture.map(|p| p.url.to_string()).as_deref(), Some("https://cdn.example/large.jpg"));

    let video = json!({
        "type": "video", "title": "Film", "width": 640, "height": 480, "thumbnail_url": "/small.jpg",
        "html": "<iframe src='https://video.example/embed'></iframe>",
    });
    let told = embedded("<meta property=og:title content=Page><img src=/page.png width=99 height=99>", &video);
    let expected =
        json!({ "og:title": "Page", "og:type": "video.other", "og:video:width": 640, "og:video:height": 480 });
    assert_eq!(Value::Object(told.said), expected);
    assert_eq!(told.picture.map(|p| p.url.to_string()).as_deref(), Some("https://example.org/small.jpg"));

    let rich = json!({
        "type": "rich", "author_name": "Bob", "html": "<blockquote><p>Hello &amp; <a href=x>good bye</a></p></blockquote><script>no()</script>",
    });
    let expected = json!({ "og:title": "Bob", "og:description": "Hello & good bye" });
    assert_eq!(Value::Object(embedded("", &rich).said), expected);
    let link = json!({ "type": "link", "title": 3, "thumbnail_url": "javascript:x" });
    assert_eq!(
        embedded("", &link),
        Told { said: json!({ "og:type": "website" }).as_object().cloned().expect("a map"), picture: None }
    );
}

#[test]
fn what_is_no_oembed_says_nothing() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for bad in ["", "[]", "3", "{", "<oembed/>", &format!(r#"{{"title":{deep}}}"#)] {
        assert!(oembed(bad.as_bytes(), &url()).is_none(), "{bad}");
    }
    assert!(oembed(b"\xef\xbb\xbf{}", &url()).is_some());
}

#[test]
fn letters_are_those_of_the_page() {
    let told = page(b"<meta charset=shift_jis><title>\x93\xfa\x96\x7b</title>", None, &url()).told(None);
    assert_eq!(told.said["og:title"], "日本");
    let utf_16: Vec<u8> = "\u{feff}<title>日本</title>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(page(&utf_16, None, &url()).told(None).said["og:title"], "日本");
    assert_eq!(excerpt(b"caf\xe9\n\n\n au lait", Some("iso-8859-1")).as_deref(), Some("café\nau lait"));
    assert_eq!(excerpt(b"  \0", None), None);
}
