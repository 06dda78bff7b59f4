"""Nothing that a URL says of who logs in, nor its query, is shown to anybody."""

from __future__ import annotations

import pytest

from linstor_un import hiding, log

SHOWN = [
    ("http://user:SECRET@host/x", "http://(hidden)@host/x"),
    ("http://SECRET@host:80/x", "http://(hidden)@host:80/x"),
    ("https://user:a@SECRET@[::1]:80/x", "https://(hidden)@[::1]:80/x"),
    ("https://user:SE/CRET@host/x", "https://(hidden)@host/x"),
    ("https://host/x?token=SECRET", "https://host/x?(hidden)"),
    ("https://host/x?a]b=SECRET&c=?SECRET'd", "https://host/x?(hidden)"),
    ("http://user:SECRET@host/x?SECRET", "http://(hidden)@host/x?(hidden)"),
    ("linstor+ssl://user:SECRET@host", "linstor+ssl://(hidden)@host"),
    ("ssh://one:SECRET@host:/a/b", "ssh://(hidden)@host:/a/b"),
    ("http://host/a@b", "http://host/a@b"),
    ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
    ("linstor://host:3370", "linstor://host:3370"),
    ("node1:/var/lib/one//datastores/100@1", "node1:/var/lib/one//datastores/100@1"),
]


@pytest.mark.parametrize(("secret", "shown"), SHOWN)
def test_what_is_secret_in_a_url_is_hidden_and_the_rest_is_not(secret: str, shown: str) -> None:
    assert hiding.urls(secret) == hiding.url(secret) == shown
    # Once more, by whoever passes it on.
    assert hiding.urls(shown) == shown


def test_every_url_of_a_sentence_or_of_xml_is_found_and_what_is_around_it_stays() -> None:
    for secret, shown in SHOWN:
        for text in ("Image {} is cut short; see {} (fetch it again)", "<A>{}</A><B><![CDATA[{}]]></B>", "{}\n{}"):
            assert hiding.urls(text.format(secret, secret)) == text.format(shown, shown)


def test_a_url_with_blanks_is_hidden_whole() -> None:
    assert hiding.url("http://a:b SECRET@host/c d?e=f SECRET") == "http://(hidden)@host/c d?(hidden)"


def test_the_log_shows_no_secret() -> None:
    log.start("test/hiding")
    log.info("http://user:SECRET@host/x?SECRET broke off")
    assert log.lines() == ["INFO: test/hiding: http://(hidden)@host/x?(hidden) broke off"]
