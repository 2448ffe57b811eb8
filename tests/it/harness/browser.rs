//! A browser without a screen: it signs in, opens pages and presses the buttons of their forms.

use std::borrow::Borrow;

use reqwest::Method;

use super::app::{Answer, TestApp, send};

/// A browser that is signed in.
pub(crate) struct Browser<'a> {
    app: &'a TestApp,
    pub(crate) cookie: String,
}

/// The body of a form.
fn encoded<N: AsRef<str>, V: AsRef<str>>(fields: impl IntoIterator<Item = impl Borrow<(N, V)>>) -> String {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    for field in fields {
        let (name, value) = field.borrow();
        body.append_pair(name.as_ref(), value.as_ref());
    }
    body.finish()
}

/// Asks for a session, from a page that sends these headers.
pub(crate) async fn try_sign_in(app: &TestApp, token: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = app.request(Method::POST, "/console/sign-in");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request.body(encoded([("token", token), ("to", "/console/s/default")]))).await
}

/// Signs in with a token.
pub(crate) async fn sign_in<'a>(app: &'a TestApp, token: &str) -> Browser<'a> {
    let answer = try_sign_in(app, token, &[("sec-fetch-site", "same-origin")]).await.expect(303);
    assert_eq!(answer.header("location"), "/console/s/default");
    let cookie = answer.header("set-cookie");
    for part in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    Browser { app, cookie: cookie.split(';').next().unwrap().to_owned() }
}

/// Text without what HTML does to it.
pub(crate) fn plain(html: &str) -> String {
    let mut text = html.to_owned();
    for (escaped, plain) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#60;", "<"),
        ("&#62;", ">"),
        ("&#38;", "&"),
    ] {
        text = text.replace(escaped, plain);
    }
    text
}

/// What stands between two texts.
pub(crate) fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).unwrap_or_else(|| panic!("no {start}: {text}")).1.split(end).next().unwrap()
}

impl Browser<'_> {
    pub(crate) async fn send(&self, method: Method, path: &str, with: &[(&str, &str)]) -> Answer {
        let mut request = self.app.request(method, path).header("cookie", &self.cookie);
        for (name, value) in with {
            request = request.header(*name, *value);
        }
        send(request).await
    }

    pub(crate) async fn open(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[]).await
    }

    pub(crate) async fn page(&self, rest: &str) -> Answer {
        self.open(&format!("/console/s/default{rest}")).await
    }

    pub(crate) async fn form_key(&self) -> String {
        between(&self.page("").await.text, "data-form-key=\"", "\"").to_owned()
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        fields: &[(String, String)],
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request =
            self.app.request(Method::POST, path).header("cookie", &self.cookie).body(encoded(fields));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request).await
    }

    /// Presses the button of a form of a page, with what somebody has written into its fields.
    pub(crate) async fn press(&self, page: &Answer, form: &str, written: &[(&str, &str)]) -> Answer {
        let html = between(&page.text, &format!("<form id=\"{form}\""), "</form>");
        let mut fields: Vec<(String, String)> = Vec::new();
        for input in html.split("<input ").skip(1) {
            let input = input.split('>').next().unwrap();
            let is_off = input.contains("type=\"checkbox\"") && !input.contains(" checked");
            if !is_off {
                fields
                    .push((plain(between(input, "name=\"", "\"")), plain(between(input, "value=\"", "\""))));
            }
        }
        for (name, value) in written {
            fields.retain(|(known, _)| known != name);
            fields.push(((*name).to_owned(), (*value).to_owned()));
        }
        self.post("/console/act", &fields, &[("sec-fetch-site", "same-origin")]).await
    }

    /// The same where it is asked first whether it is meant: what it would do, and what came of it.
    pub(crate) async fn press_twice(
        &self,
        page: &Answer,
        form: &str,
        written: &[(&str, &str)],
    ) -> (Answer, Answer) {
        let asked = self.press(page, form, written).await.expect(200);
        let done = self.press(&asked, "confirm", &[]).await;
        (asked, done)
    }
}
