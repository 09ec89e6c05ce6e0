//! `lb`: reads the command line, and hands over to the library.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use lb_userspace::{
    agent::{self, World, advice, machine, start},
    api::{self, ApiError, Reply, Status, call},
    cli::{self, Cli, Command, Exit, Instance},
    config,
    dataplane::Pins,
    init,
    netlink::Netlink,
    observe::{
        capture::{Shown, Sink},
        text,
    },
};
use tokio::signal::unix::{SignalKind, signal};

/// What is logged unless RUST_LOG says otherwise. The netlink library warns of every answer that nobody waits for any
/// more, which is each end of a run.
const LOG: &str = "info,netlink_proto=error";

/// How long packets of a capture are awaited that came before its end.
const ON_ITS_WAY: Duration = Duration::from_millis(300);

/// Time between two looks at a draining backend.
const WATCH: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(LOG)).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lb: no runtime: {error}");
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(dispatch(cli)) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("lb: {error:#}");
            Exit::Failed.into()
        }
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let instance = &cli.instance;
    Ok(match cli.command {
        Command::Run(run) => match read(&run.file) {
            Ok(config) => {
                let mode = run.xdp_mode.unwrap_or(config.xdp_mode);
                agent::start(&world(instance, &run.file), config, mode, run.confirm).await?;
                Exit::Done.into()
            }
            Err(exit) => exit.into(),
        },
        Command::Check(asked) => match &asked.diff {
            Some(file) => compare(instance, file, asked.json).await?,
            None => match read(&asked.file) {
                Ok(config) => check(&config, &asked.file).await?,
                Err(exit) => exit.into(),
            },
        },
        Command::Reload(asked) => reload(instance, asked).await,
        Command::Init(wanted) => init(&wanted).await,
        Command::Status(options) => status(instance, options.json).await,
        Command::Events(options) => events(instance, &options).await,
        Command::Explain(options) => explain(instance, &options).await,
        Command::Drain(drain) => drained(instance, drain).await,
        Command::Cut(cut) => ask(instance, api::Command::Cut(api::Cut { name: cut.name.to_string() })).await,
        Command::Ready(ready) => {
            ask(instance, api::Command::Ready(api::Ready { name: ready.name.to_string() })).await
        }
        Command::Maint(maint) => {
            ask(instance, api::Command::Maint(api::Maint { name: maint.name.to_string() })).await
        }
        Command::Weight(asked) => {
            let weight = api::SetWeight { name: asked.name.to_string(), weight: asked.weight.0 };
            ask(instance, api::Command::Weight(weight)).await
        }
        Command::Galera(cli::Galera::Status(options)) => clusters(instance, &options).await,
        Command::Galera(order) => say(call(&instance.socket(), order.command()).await),
        Command::Capture(options) => capture(instance, &options).await,
        Command::Trace(options) => trace(instance, &options).await,
        Command::Confirm => ask(instance, api::Command::Confirm).await,
        Command::Completions(wanted) => {
            let shell = clap_complete::aot::Shell::from(wanted.shell);
            clap_complete::aot::generate(shell, &mut Cli::command(), "lb", &mut io::stdout());
            Exit::Done.into()
        }
        Command::Detach => detach(instance).await?,
    })
}

fn world(instance: &Instance, file: &cli::ConfigFile) -> World {
    World {
        instance: instance.name().to_owned(),
        socket: instance.socket(),
        pins: instance.pins(),
        state: instance.state(),
        config: file.config.clone(),
    }
}

/// The configuration, or its errors on standard error; what is only to be said, too.
fn read(file: &cli::ConfigFile) -> Result<config::Config, Exit> {
    match config::load_with_notes(&file.config) {
        Ok((config, notes)) => {
            for note in &notes {
                eprintln!("warning: {}", note.text());
            }
            Ok(config)
        }
        Err(errors) => {
            eprintln!("{errors}");
            Err(Exit::BadInput)
        }
    }
}

/// `lb check`: the file was read; now hold it against this machine.
async fn check(config: &config::Config, file: &cli::ConfigFile) -> anyhow::Result<ExitCode> {
    let netlink = Netlink::open().context("asking the kernel for interfaces")?;
    if let Err(error) = machine::interfaces(&netlink, config).await {
        eprintln!("{}: error: {error}", file.config.display());
        return Ok(Exit::BadInput.into());
    }
    let ports = machine::source_ports(config)?;
    println!(
        "{}: {} service(s), {} cluster(s): good",
        file.config.display(),
        config.services.len(),
        config.clusters.len()
    );
    for line in advice::sustainable(config, &ports) {
        println!("{line}");
    }
    for sentence in advice::advice(&netlink, config).await? {
        println!("note: {sentence}");
    }
    Ok(Exit::Done.into())
}

/// Have something done and print the answer.
async fn ask(instance: &Instance, command: api::Command) -> ExitCode {
    say(call(&instance.socket(), command).await)
}

async fn reload(instance: &Instance, asked: cli::Reload) -> ExitCode {
    let deadline_ms = asked.deadline.map(|deadline| deadline.as_millis() as u64);
    let reload = api::Command::Reload(api::Reload { deadline_ms });
    say_changes(call(&instance.socket(), reload).await, asked.json)
}

/// `lb check --diff`: the agent reads the file by itself, and says what it would change.
async fn compare(instance: &Instance, file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let path = std::path::absolute(file).with_context(|| format!("finding {}", file.display()))?;
    let diff = api::Diff { path: path.display().to_string() };
    Ok(say_changes(call(&instance.socket(), api::Command::Diff(diff)).await, json))
}

fn say_changes(answer: Result<Reply, ApiError>, json: bool) -> ExitCode {
    match answer {
        Ok(Reply::Changes(changes)) if json => print_json(&changes),
        answer => say(answer),
    }
}

/// Print an answer; the exit code that it stands for.
fn say(answer: Result<Reply, ApiError>) -> ExitCode {
    match answer {
        Ok(Reply::Done { message }) => {
            println!("{message}");
            Exit::Done.into()
        }
        Ok(Reply::Status(status)) => {
            print!("{}", api::render(&status));
            Exit::Done.into()
        }
        Ok(Reply::Trace(traced)) => {
            print!("{}", text::traced(&traced));
            Exit::Done.into()
        }
        Ok(Reply::Changes(changes)) => {
            print!("{changes}");
            Exit::Done.into()
        }
        Ok(Reply::Explain(explanation)) => {
            print!("{}", api::explained(&explanation));
            Exit::Done.into()
        }
        Ok(Reply::Refused(refusal)) => fail(&ApiError::Refused(refusal)),
        Err(error) => fail(&error),
    }
}

fn fail(error: &ApiError) -> ExitCode {
    eprintln!("lb: {error}");
    ExitCode::from(error.exit_code())
}

async fn fetch(instance: &Instance) -> Result<Status, ApiError> {
    match call(&instance.socket(), api::Command::Status).await? {
        Reply::Status(status) => Ok(*status),
        Reply::Refused(refusal) => Err(ApiError::Refused(refusal)),
        other => Err(ApiError::NoAnswer { socket: instance.socket(), reason: format!("{other:?}") }),
    }
}

async fn status(instance: &Instance, json: bool) -> ExitCode {
    match fetch(instance).await {
        Ok(status) if json => print_json(&status),
        Ok(status) => say(Ok(Reply::Status(Box::new(status)))),
        Err(error) => fail(&error),
    }
}

async fn clusters(instance: &Instance, options: &cli::Shown) -> ExitCode {
    let status = match fetch(instance).await {
        Ok(status) => status,
        Err(error) => return fail(&error),
    };
    let name = options.cluster.as_deref();
    let shown: Vec<_> =
        status.clusters.iter().filter(|cluster| name.is_none_or(|name| cluster.name == name)).collect();
    if let (Some(name), true) = (name, shown.is_empty()) {
        eprintln!("lb: there is no cluster {name} here; `lb galera status` shows what there is");
        return Exit::BadInput.into();
    }
    if options.json {
        return print_json(&shown);
    }
    print!("{}", api::render_clusters(&status, name));
    Exit::Done.into()
}

fn print_json(value: &impl serde::Serialize) -> ExitCode {
    match serde_json::to_string_pretty(value) {
        Ok(text) => {
            println!("{text}");
            Exit::Done.into()
        }
        Err(error) => {
            eprintln!("lb: the answer cannot be printed: {error}");
            Exit::Failed.into()
        }
    }
}

async fn trace(instance: &Instance, options: &cli::Trace) -> ExitCode {
    match call(&instance.socket(), api::Command::Trace(options.into())).await {
        Ok(Reply::Trace(traced)) if options.json => print_json(&traced),
        answer => say(answer),
    }
}

async fn explain(instance: &Instance, options: &cli::Explain) -> ExitCode {
    let asked = api::Explain { name: options.name.clone() };
    match call(&instance.socket(), api::Command::Explain(asked)).await {
        Ok(Reply::Explain(explanation)) if options.json => print_json(&explanation),
        answer => say(answer),
    }
}

/// Show what has changed, and what changes until the agent or the reader ends.
async fn events(instance: &Instance, options: &cli::Events) -> ExitCode {
    let mut lines = match api::events(&instance.socket(), options.into()).await {
        Ok(lines) => lines,
        Err(error) => return fail(&error),
    };
    let zone = jiff::tz::TimeZone::system();
    loop {
        let entries = match lines.next().await {
            Ok(entries) if entries.is_empty() => return Exit::Done.into(),
            Ok(entries) => entries,
            Err(error) => return fail(&error),
        };
        let mut out = io::stdout().lock();
        for entry in &entries {
            let line = if options.json {
                serde_json::to_string(entry).unwrap_or_default()
            } else {
                entry.line(&zone)
            };
            // Whoever read this has gone, `head` for instance.
            if writeln!(out, "{line}").is_err() {
                return Exit::Done.into();
            }
        }
    }
}

/// `lb init`: the file, and what is left to do.
async fn init(wanted: &cli::Init) -> ExitCode {
    match init::init(wanted).await {
        Ok(done) => {
            if let Some(text) = &done.text {
                print!("{text}");
                eprint!("{}", done.left);
            } else {
                print!("{}", done.left);
            }
            Exit::Done.into()
        }
        Err(error) => {
            eprintln!("lb: {error}");
            if error.is_bad_input() { Exit::BadInput.into() } else { Exit::Failed.into() }
        }
    }
}

/// Show packets until the agent ends it, or somebody here does.
async fn capture(instance: &Instance, options: &cli::Capture) -> ExitCode {
    let failed = |error: &io::Error| {
        eprintln!("lb: the packets cannot be written: {error}");
        ExitCode::from(Exit::Failed)
    };
    // Heard from here on, whatever is at hand when it comes.
    let mut interrupt = match signal(SignalKind::interrupt()) {
        Ok(interrupt) => interrupt,
        Err(error) => return failed(&error),
    };
    let mut lines = match api::capture(&instance.socket(), options.into()).await {
        Ok(lines) => lines,
        Err(error) => return fail(&error),
    };
    // A refused capture leaves an older file as it was.
    let mut sink = match Sink::open(options.write.as_deref()) {
        Ok(sink) => sink,
        Err(error) => return failed(&error),
    };
    eprintln!("lb: packets are captured; Ctrl-C ends it");
    let (mut shown, zone) = (Shown::default(), jiff::tz::TimeZone::system());
    // After Ctrl-C, what is on its way yet is shown.
    let (mut last, mut interrupted) = (tokio::time::Instant::now(), false);
    let ended = loop {
        let taken = tokio::select! {
            taken = lines.next() => taken,
            _ = interrupt.recv(), if !interrupted => {
                (last, interrupted) = (tokio::time::Instant::now() + ON_ITS_WAY, true);
                continue;
            }
            () = tokio::time::sleep_until(last), if interrupted => break Ok(()),
        };
        match taken {
            Ok(taken) if taken.is_empty() => break Ok(()),
            Ok(taken) => {
                let written = taken.iter().try_for_each(|line| sink.take(line, &mut shown, &zone));
                if let Err(error) = written.and_then(|()| sink.flush()) {
                    return failed(&error);
                }
            }
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = sink.finish(&shown) {
        return failed(&error);
    }
    let Shown { packets, lost, .. } = shown;
    eprintln!("lb: {packets} packets shown; {lost} looks at packets lost");
    ended.map_or_else(|error| fail(&error), |()| Exit::Done.into())
}

async fn drained(instance: &Instance, drain: cli::Drain) -> ExitCode {
    let name = drain.name.to_string();
    let deadline_ms = drain.deadline.map(|deadline| deadline.as_millis() as u64);
    let asked = api::Drain { name: name.clone(), deadline_ms, then: drain.then };
    let answer = call(&instance.socket(), api::Command::Drain(asked)).await;
    if !drain.wait || !matches!(answer, Ok(Reply::Done { .. })) {
        return say(answer);
    }
    say(answer);
    let grace = if drain.then == api::Then::Cut { agent::CUT_WITHIN } else { Duration::ZERO };
    let deadline = drain.deadline.map(|within| tokio::time::Instant::now() + within + grace);
    loop {
        let left = match fetch(instance).await {
            Ok(status) => live(&status, &drain.name),
            Err(error) => return fail(&error),
        };
        if left == 0 {
            println!("{name}: no connection is left");
            return Exit::Done.into();
        }
        if deadline.is_some_and(|deadline| tokio::time::Instant::now() >= deadline) {
            eprintln!("lb: {name}: {left} connections are left at the deadline");
            return Exit::DeadlinePassed.into();
        }
        tokio::time::sleep(WATCH).await;
    }
}

/// Connections of a backend, or of a node over all services of its cluster.
fn live(status: &Status, member: &cli::Member) -> u64 {
    let services = status
        .services
        .iter()
        .filter(|service| service.name == member.owner || service.cluster.as_deref() == Some(&member.owner));
    let backends = services.flat_map(|service| &service.backends);
    backends.filter(|backend| backend.name == member.name).map(|backend| backend.live).sum()
}

/// Through the agent if there is one, otherwise by hand.
async fn detach(instance: &Instance) -> anyhow::Result<ExitCode> {
    match call(&instance.socket(), api::Command::Detach).await {
        Err(ApiError::NotReached { .. }) => {
            let netlink = Netlink::open().context("asking the kernel for neighbours")?;
            start::remove(&Pins::new(instance.pins()), &netlink)
                .await
                .with_context(|| format!("removing {}", instance.pins().display()))?;
            println!("detached: program, maps and pins are removed");
            Ok(Exit::Done.into())
        }
        answer => Ok(say(answer)),
    }
}
