//! The page of a mapper, in a real browser: what it shows, what keys do, and what it may not do.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use svcmap_proto::io::Clock;
use svcmap_proto::load::{Load, State};
use svcmap_tests::batch::text;
use svcmap_tests::browser::{Browser, DOWN, ENTER, ESCAPE, RIGHT};
use svcmap_tests::http::{Served, ask};
use svcmap_tests::listed::{nobody, register, registration};
use svcmap_tests::up::{Up, kill, pid_of};
use svcmap_tests::{eventually, executable};
use svcmap_worker::{Client, Job, Responder, Worker};

/// A topology with these services, and where the page of its mapper is.
fn up(services: &str) -> (Up, String) {
    let mapper = "[mapper.main]\nbind = \"tcp://127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n";
    let up = Up::started(&format!("{mapper}[defaults]\nrestart = \"never\"\n{services}"));
    let log = up.log();
    let (_, url) = log.split_once("serves HTTP, url: ").expect(&log);
    let url = format!("{}/", url.lines().next().unwrap());
    (up, url)
}

fn service(name: &str, builtin: &str, instances: u32) -> String {
    format!("[service.{name}]\nbuiltin = \"{builtin}\"\ninstances = {instances}\nqueue = 1\n")
}

/// A sender to the mapper of that topology.
fn client(up: &Up) -> Client {
    let status: Value = serde_json::from_str(&up.ok(&["status", "--json"])).unwrap();
    Client::connect(status["mappers"][0]["endpoint"].as_str().unwrap()).unwrap()
}

/// A browser with that page, which has been filled.
fn open(url: &str) -> Browser {
    let browser = Browser::start();
    browser.look("light", 1280);
    browser.open(url);
    browser.wait_for("return document.title.includes('svcmap') && document.title !== 'svcmap'");
    browser
}

/// Nothing went wrong, and nobody else was asked for anything.
fn assert_well_behaved(browser: &Browser, url: &str) {
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let asked = browser.requests();
    assert!(asked.iter().any(|asked| asked.ends_with("/status.json")), "{asked:?}");
    // What begins with `data:` is in the page, or the browser's own.
    let is_elsewhere = |asked: &&String| !asked.starts_with(url) && !asked.starts_with("data:");
    assert_eq!(asked.iter().find(is_elsewhere), None);
}

/// What the page shows: for each service its line, for each instance what its place tells.
const SHOWN: &str = "
    const text = (node, part) => node.querySelector('.' + part)?.textContent;
    const services = {}, instances = {};
    for (const block of document.querySelectorAll('#services .block')) {
        const figure = (name) => text(block.querySelector('.service .' + name), 'value');
        services[block.dataset.service] = [
            block.querySelector('.state .word').textContent,
            ...['ready', 'running', 'queued', 'slots'].map(figure), text(block, 'percent')];
        for (const cell of block.querySelectorAll('[role=option]')) {
            instances[cell.dataset.key] = cell.className.startsWith('card')
                ? [text(cell, 'word'), text(cell, 'percent'), text(cell, 'work'), text(cell, 'pid'),
                    text(cell, 'address')]
                : cell.getAttribute('aria-label');
        }
    }
    return {services, instances};";

fn percent(load: &Value) -> String {
    let exact = load.as_f64().unwrap() * 100.0;
    match exact {
        some if some > 0.0 && some < 1.0 => "1%".to_owned(),
        most if most > 99.0 && most < 100.0 => "99%".to_owned(),
        other => format!("{}%", other.round()),
    }
}

/// The same of what the command says.
fn said(status: &Value, are_cards: bool) -> Value {
    let mut said = json!({"services": {}, "instances": {}});
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for row in status["services"].as_array().unwrap() {
        let [full, ready, instances] = ["full", "ready", "instances"].map(|name| &row[name]);
        let state = if *full != 0 && full == ready { "full" } else { "ready" };
        let counts = ["running", "queued", "slots"].map(|name| row[name].to_string());
        let mut line = vec![state.to_owned(), format!("{ready}/{instances}")];
        line.extend(counts);
        line.push(percent(&row["load"]));
        said["services"][text(&row["service"])] = json!(line);
    }
    for row in status["instances"].as_array().unwrap() {
        let [service, instance, state, pid, endpoint, running, queued, slots] =
            ["service", "instance", "state", "pid", "endpoint", "running", "queued", "slots"]
                .map(|name| text(&row[name]));
        let load = percent(&row["load"]);
        said["instances"][format!("{service}/{instance}")] = match are_cards {
            true => json!([
                state,
                format!("{load} of {slots}"),
                format!("{running} running · {queued} queued"),
                format!("pid {pid}"),
                endpoint.trim_start_matches("tcp://")
            ]),
            false => json!(format!("{instance}, {state}, load {load}")),
        };
    }
    said
}

/// Waits until the page shows what the command says, of so many instances.
fn wait_alike(browser: &Browser, status: &dyn Fn() -> String, are_cards: bool, count: usize) {
    eventually("the page to show what the command says", || {
        let status: Value = serde_json::from_str(&status()).unwrap();
        let instances = status["instances"].as_array().map_or(0, Vec::len);
        instances == count && browser.run(SHOWN) == said(&status, are_cards)
    });
}

#[test]
fn its_parts_are_served_to_be_kept_and_with_a_strict_policy() {
    let mapper = Served::mapper(&[]);
    let page = mapper.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let [sniff, referrer] =
        ["x-content-type-options", "referrer-policy"].map(|name| page.header(name));
    assert_eq!((sniff, referrer), (Some("nosniff"), Some("no-referrer")));
    // All that the page and its scripts name is there, and nothing that the policy forbids.
    let mut parts = vec!["page/style.css".to_owned(), "page/main.js".to_owned()];
    while let Some(part) = parts.pop() {
        let path = format!("/{part}");
        let answer = mapper.get(&path);
        assert_eq!(answer.status, 200, "{path}");
        let etag = format!("if-none-match: {}", answer.header("etag").expect(&path));
        assert_eq!(ask(&mapper.http, "GET", &path, &[&etag]).unwrap().status, 304, "{path}");
        let imports = answer.body.split(" from \"./").skip(1);
        parts.extend(imports.map(|rest| format!("page/{}", rest.split('"').next().unwrap())));
    }
    for forbidden in [" style=", " onclick=", "<script>", "http://127", "https://"] {
        assert!(!page.body.contains(forbidden), "{forbidden}");
    }
    let lost = mapper.get("/nowhere");
    assert_eq!(lost.status, 404);
    assert!(lost.body.contains("\n/                  a live map of"), "{}", lost.body);
    assert!(!lost.body.contains("/page/"), "{}", lost.body);
}

#[test]
#[ignore = "needs the programs chromium and chromedriver: see .ci/run"]
fn a_page_of_3_shows_what_the_command_says_follows_a_death_and_says_when_it_is_old() {
    let (up, url) = up(&(service("nap", "sleep", 2) + &service("echo", "echo", 1)));
    let browser = open(&url);
    let client = client(&up);
    // Of four slots three are taken.
    let _jobs: Vec<_> = (0..3).map(|_| client.submit("nap", "300s").unwrap()).collect();
    browser.wait_for("return document.querySelector('#services .running').textContent > '0'");
    let status = || up.ok(&["status", "--json"]);
    wait_alike(&browser, &status, true, 3);

    // What stands still is said to.
    let mapper = Pid::from_raw(pid_of(&up.process("main")).unwrap().cast_signed()).unwrap();
    kill_process(mapper, Signal::STOP).unwrap();
    browser.wait_for("return document.body.classList.contains('is-stale')");
    let banner = browser.run("return document.getElementById('banner').textContent");
    assert!(banner.as_str().unwrap().contains("figures are as they were"), "{banner}");
    kill_process(mapper, Signal::CONT).unwrap();
    browser.wait_for("return !document.body.classList.contains('is-stale')");
    wait_alike(&browser, &status, true, 3);
    assert_well_behaved(&browser, &url);

    let began_at = Clock.now();
    kill(pid_of(&up.process("echo/1")).unwrap());
    browser.wait_for("return document.querySelector('[data-key=\"echo/1\"]') === null");
    let followed = Clock.now().since(began_at);
    println!("a killed worker was gone from the page after {followed:?}");
    let events = browser.run("return document.getElementById('events').textContent");
    assert!(events.as_str().unwrap().contains("echo/1 left"), "{events}");
    let start =
        browser.run("return document.querySelector('[data-service=echo] .start').textContent");
    assert!(start.as_str().unwrap().contains("svcmap worker --service echo …"), "{start}");
}

#[test]
#[ignore = "needs the programs chromium and chromedriver: see .ci/run"]
fn a_page_of_300_shows_all_of_them_and_costs_little() {
    let mapper = Served::mapper(&[]);
    let worker = |service: &str, number: u32| {
        let builder = Worker::builder(service).instance(&number.to_string());
        builder.mapper(mapper.endpoint()).queue(1)
    };
    let held = Arc::new(Mutex::new(Vec::new()));
    let (mut holding, mut working) = (Vec::new(), Vec::new());
    for number in 1..=150 {
        let held = held.clone();
        let hold = move |_: Job, responder: Responder| held.lock().unwrap().push(responder);
        holding.push(worker("ocr", number).serve_later(hold).unwrap());
        let work = |_: &Job| svcmap::io::pause_until(Clock.now() + Duration::from_millis(400));
        working.push(worker("thumbnail", number).serve(work).unwrap());
    }
    let url = format!("http://{}/", mapper.http);
    let browser = open(&url);
    let client = Client::connect(mapper.endpoint()).unwrap();
    let jobs: Vec<_> = (0..60).map(|_| client.submit("ocr", "").unwrap()).collect();
    eventually("jobs to be held", || held.lock().unwrap().len() == 60);
    let status = || {
        let mut command = Command::new(executable());
        command.args(["status", "--json", "--insecure", "--mapper", mapper.endpoint()]);
        text(&command.output().unwrap().stdout)
    };
    wait_alike(&browser, &status, false, 300);

    let work = || client.submit("thumbnail", "").unwrap();
    let mut works: VecDeque<_> = (0..100).map(|_| work()).collect();
    let (began_at, busy) = (Clock.now(), browser.busy());
    while Clock.now().since(began_at) < Duration::from_secs(10) {
        works.pop_front().unwrap().wait();
        works.push_back(work());
    }
    let elapsed = Clock.now().since(began_at);
    let share = (browser.busy() - busy).as_secs_f64() / elapsed.as_secs_f64();
    println!("300 instances, most of them busy: the page takes {:.1} % of a core", share * 100.0);
    assert_well_behaved(&browser, &url);
    // Nobody waits for them any more.
    held.lock().unwrap().clear();
    drop((jobs, works, client));
}

#[test]
#[ignore = "needs the programs chromium and chromedriver: see .ci/run"]
fn keys_find_move_keep_and_lead_back() {
    let (_up, url) = up(&(service("ocr", "echo", 3) + &service("mail", "echo", 1)));
    let browser = open(&url);
    let focused =
        || browser.run("return document.activeElement.dataset.key ?? document.activeElement.id");
    let kept = || {
        browser.run("return [...document.querySelectorAll('[aria-selected=true]')].map((cell) => cell.dataset.key)")
    };
    let listed = || browser.run("return document.querySelectorAll('[role=option]').length");
    browser.press("/");
    assert_eq!(focused(), "filter");
    browser.press("OCR/");
    assert_eq!(listed(), 3);
    browser.press(DOWN);
    assert_eq!(focused(), "ocr/1");
    browser.press(RIGHT);
    assert_eq!(focused(), "ocr/2");
    let detail = browser.run("return document.getElementById('detail').textContent");
    assert!(detail.as_str().unwrap().contains("svcmap drain ocr/2"), "{detail}");
    let outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(outline, "solid");
    browser.press(ENTER);
    assert_eq!(kept(), json!(["ocr/2"]));
    // A report later all is as it was.
    let age = "return document.querySelector('[data-key=\"ocr/2\"] .age').textContent";
    let before = browser.run(age);
    eventually("another report", || browser.run(age) != before);
    assert_eq!((focused(), kept()), (json!("ocr/2"), json!(["ocr/2"])));
    browser.press(ESCAPE);
    assert_eq!((kept(), listed()), (json!([]), json!(3)));
    browser.press(ESCAPE);
    assert_eq!(listed(), 4);
    browser.press("/xyz");
    let note = browser.run("return document.getElementById('note').textContent");
    assert!(note.as_str().unwrap().contains("Nothing has xyz in its name"), "{note}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// How well text stands out from what is behind it, least of all that is shown; 4.5 is enough for everybody.
const CONTRAST: &str = "
    const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const ground = (node) => {
        const own = parse(getComputedStyle(node).backgroundColor);
        return own[3] === 0 && node.parentElement ? ground(node.parentElement) : own;
    };
    let least = [99, ''];
    for (const node of document.querySelectorAll('body *')) {
        const has = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim() !== '');
        if (!has || node.closest('noscript') || node.getClientRects().length === 0) continue;
        const [one, other] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio < least[0]) least = [ratio, node.className + ': ' + node.textContent.slice(0, 40)];
    }
    return least;";

#[test]
#[ignore = "needs the programs chromium and chromedriver: see .ci/run"]
fn each_state_is_told_in_words_and_text_of_others_stays_text() {
    let mapper = Served::mapper(&["--beat", "60s"]);
    let mapper_at = mapper.endpoint().parse().unwrap();
    let load = Load { slots: 4, concurrency: 2, state: State::Ready, ..Load::default() };
    let attack = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)</script>";
    let of = |instance: &str, load: Load| registration("ocr", instance, &nobody(), load);
    let stuck = Load {
        running: 2,
        queued: 1,
        oldest_queued_ms: 90_000,
        since_finish_ms: Some(80_000),
        ..load
    };
    let mut failing = of("failing", load);
    failing.error = Some(attack.to_owned());
    let all = vec![
        of("ready", load),
        of("full", Load { running: 2, queued: 2, ..load }),
        of("draining", Load { state: State::Draining, running: 1, ..load }),
        of("stuck", stuck),
        failing,
    ];
    let browser = Browser::start();
    browser.look("light", 1280);
    let url = format!("http://{}/", mapper.http);
    browser.open(&url);
    browser.wait_for("return document.getElementById('note').textContent.startsWith('Nobody serves anything yet')");
    register(&mapper_at, all);
    for state in ["ready", "full", "draining", "stuck", "failing"] {
        browser.wait_for(&format!(
            "return document.querySelector('[data-key=\"ocr/{state}\"] .word')?.textContent === '{state}'"
        ));
    }
    let warnings = browser.run("return document.getElementById('warnings').textContent");
    assert!(warnings.as_str().unwrap().contains(attack), "{warnings}");
    browser.run("document.querySelector('[data-key=\"ocr/failing\"]').click()");
    let detail = browser.run("return document.querySelector('.pinned .why').textContent");
    assert_eq!(detail, format!("failing: {attack}"));
    let inserted = browser.run("return document.querySelectorAll('img, body script').length");
    assert_eq!(inserted, 0);
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("dark", 400), ("light", 400)] {
        browser.look(scheme, width);
        let least = browser.run(CONTRAST);
        println!("{scheme}, {width}: {least}");
        assert!(least[0].as_f64() >= Some(4.5), "{scheme}, {width}: {least}");
        let overflow = browser.run("return document.documentElement.scrollWidth - innerWidth");
        assert!(overflow.as_f64() <= Some(0.0), "{scheme}, {width}: {overflow}");
    }
    assert_well_behaved(&browser, &url);
}

/// Reports of one service, as its instances are given, and a model that has read them.
const GIVEN: &str = "
    const { Model } = await import('/page/model.js');
    const given = (instance, more = {}) => ({
        service: 'ocr', instance, endpoint: 'tcp://127.0.0.1:1', pid: 1, incarnation: 1,
        state: 'ready', dialect: 'native', queued: 0, queued_high: 0, queued_low: 0, running: 0,
        promised: 0, slots: 10, concurrency: 1, load: 0, age_ms: 0, mean_service_ms: 5, done: 0,
        failed: 0, rejected: 0, oldest_queued_ms: 0, since_finish_ms: null, error: null, ...more });
    const report = (instances, warming = false) => {
        const services = [...new Set(instances.map((row) => row.service))].map((service) => {
            const all = instances.filter((row) => row.service === service);
            const sum = (figure) => all.reduce((sum, row) => sum + row[figure], 0);
            return { service, instances: all.length, ready: all.length, full: 0,
                queued: sum('queued'), running: sum('running'), promised: 0, slots: sum('slots'),
                load: sum('load') / all.length, age_ms: 0 };
        });
        const mapper = { endpoint: 'tcp://127.0.0.1:5555', answer: 'complete', warming,
            refused: { registrations: 0, messages: 0 } };
        return { mappers: [mapper], services, instances };
    };
    const model = new Model();
    let now = 0;
    const tell = (instances, warming) =>
        model.handleReport(now += 1000, now, report(instances, warming));
    const events = () => model.scene(now).events.map((event) => event.text);
    const jobs = () => model.scene(now).totals.jobs;
    const names = () => model.scene(now).services.map((service) => service.key);
";

/// What a script makes of the model.
fn of_model(browser: &Browser, script: &str) -> Value {
    browser.run(&format!("return (async () => {{ {GIVEN} {script} }})();"))
}

#[test]
#[ignore = "needs the programs chromium and chromedriver: see .ci/run"]
fn what_is_shown_follows_from_reports_and_their_times_alone() {
    let mapper = Served::mapper(&[]);
    let browser = Browser::start();
    browser.open(&format!("http://{}/", mapper.http));
    let of = |script: &str| of_model(&browser, script);

    // Rates are those of one life, and none is below 0.
    let rates = of("
        const rates = [];
        for (const [incarnation, done] of [[1, 100], [1, 150], [2, 10], [2, 30], [2, 5]]) {
            tell([given('a', { incarnation, done })]);
            rates.push(jobs());
        }
        return rates;");
    assert_eq!(rates, json!(["-", "50", "-", "20", "0"]));

    // Who came and left is told; but a mapper that has just started does not know everybody yet.
    let events = of("
        tell([given('a'), given('b'), given('c', { state: 'draining' })]);
        tell([given('a', { incarnation: 2 }), given('b', { state: 'failing', error: 'no\\nfile' })]);
        tell([], true);
        tell([given('a', { incarnation: 2 })], true);
        tell([given('a', { incarnation: 2 })]);
        model.handleSilence(now, now, 'why');
        tell([given('a', { incarnation: 2 })]);
        return events();");
    assert_eq!(
        events,
        json!([
            "the mapper answers again",
            "the mapper does not answer",
            "ocr/b left",
            "the mapper has started again",
            "ocr/b is failing: no\\u{a}file",
            "ocr/c left, after draining",
            "ocr/a came again, as a new process"
        ])
    );

    // Whatever comes and goes for an hour, it keeps little.
    let kept = of("
        for (let second = 0; second < 3600; second += 1) {
            tell([given('a', { done: second }), given(`b-${second}`)]);
            if (second % 100 === 0) model.turnPin(`ocr/b-${second}`);
        }
        const seen = model.scene(now);
        const [service] = seen.services;
        return [seen.events, service.minute, service.instances, seen.pins].map((all) => all.length);");
    assert_eq!(kept, json!([100, 61, 2, 6]));

    // The worst comes first, unless somebody is there; and a little worse is not worse.
    let order = of("
        const of = (service, load) => given('a', { service, load });
        const orders = [];
        const see = (...loads) => {
            tell(['a', 'b', 'c'].map((service, place) => of(service, loads[place])));
            orders.push(names().join(''));
        };
        see(0.5, 0.4, 0.3);
        see(0.5, 0.7, 0.3);
        see(0.5, 0.4, 0.9);
        model.setFrozen(true);
        see(0.9, 0.1, 0.1);
        model.setFrozen(false);
        for (let second = 0; second < 20; second += 1) see(0.9, 0.1, 0.1);
        return [...orders.slice(0, 4), orders.at(-1)];");
    assert_eq!(order, json!(["abc", "abc", "cab", "cab", "acb"]));

    // Silence keeps the figures and says how old they are; then all goes on.
    let silence = of("
        const before = model.scene(now).stage;
        model.handleSilence(now, now, 'nobody there');
        const nobody = model.scene(now).stage;
        tell([]);
        const empty = model.scene(now).stage;
        tell([given('a')]);
        model.handleSilence(now + 1000, now, 'nobody there');
        const { isStale, ageMs, silentMs, listed } = model.scene(now + 4000);
        model.handleUnchanged(now + 5000, now);
        return [before, nobody, empty, isStale, ageMs, silentMs, listed, model.scene(now + 5000).isStale];");
    assert_eq!(silence, json!(["waiting", "nobody", "empty", true, 4000, 3000, 1, false]));
}
