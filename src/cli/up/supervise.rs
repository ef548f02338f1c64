//! The one loop that knows every node's state and changes it.
//!
//! Events come from four sides (processes that end, orders from another terminal, a new
//! leader, signals) and are handled one at a time, so no lock is needed.

use std::path::Path;

use bellwether_client::Client;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::child::{self, Ended, Order};
use super::control::{self, Action, Asked, Reply};
use super::plan::{NodeSpec, Plan};
use super::watch::{self, Leads};
use super::{DEFAULT_DIR, narrate};
use crate::cli::Failure;

/// One node and the process that is it, if any.
struct Slot {
    spec: NodeSpec,
    /// `Some` while the process lives.
    orders: Option<mpsc::UnboundedSender<Order>>,
    paused: bool,
    /// Its end was asked for, so it is no surprise.
    expected: bool,
    /// Start it again when it has ended.
    restart: bool,
    /// Who waits to hear that it has ended (or started again).
    waiting: Vec<oneshot::Sender<Reply>>,
}

struct Supervisor {
    slots: Vec<Slot>,
    ended: mpsc::UnboundedSender<Ended>,
    /// Whether people have been told what to try.
    introduced: bool,
    /// For hints, when it is not the default.
    dir_hint: Option<String>,
}

/// Starts the cluster and runs it until a signal, or until no node is left by itself.
pub async fn run(plan: Plan) -> Result<(), Failure> {
    let listener = control::open(&plan.dir)?;
    let mut stop =
        Stop::new().map_err(|error| Failure::error(format!("signals can't be caught: {error}")))?;
    let client = Client::new(plan.nodes.iter().map(NodeSpec::url))?;
    announce(&plan);
    let (ended, mut ends) = mpsc::unbounded_channel();
    let (asked, mut questions) = mpsc::unbounded_channel();
    let (news, mut leaders) = mpsc::unbounded_channel();
    let mut supervisor = Supervisor::new(&plan, ended);
    supervisor.start_all()?;
    tokio::spawn(control::serve(listener, asked));
    tokio::spawn(watch::run(client, news));
    let outcome = loop {
        tokio::select! {
            biased;
            () = stop.asked() => break Ok(()),
            Some(end) = ends.recv() => {
                supervisor.on_end(end);
                if supervisor.is_lost() {
                    break Err(Failure::error("every node has ended").hint("their last lines above say why"));
                }
            }
            Some(question) = questions.recv() => supervisor.on_question(question),
            Some(leads) = leaders.recv() => supervisor.on_leader(&leads),
        }
    };
    supervisor.stop_all(&mut ends, &mut stop).await;
    narrate::say(&format!("Stopped. The data is in {}; `up` goes on with it.", plan.dir.display()));
    outcome
}

fn announce(plan: &Plan) {
    let (count, verb) = (plan.nodes.len(), if plan.resumed { "Going on with" } else { "Starting" });
    let ports: Vec<String> = plan.nodes.iter().map(|node| node.port.to_string()).collect();
    let nodes = if count == 1 { "node" } else { "nodes" };
    narrate::say(&format!(
        "{verb} {count} {nodes} on ports {}; data in {}",
        ports.join(", "),
        plan.dir.display()
    ));
}

/// SIGINT and SIGTERM, which mean the same here.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Supervisor {
    fn new(plan: &Plan, ended: mpsc::UnboundedSender<Ended>) -> Self {
        let slot = |spec: &NodeSpec| Slot {
            spec: spec.clone(),
            orders: None,
            paused: false,
            expected: false,
            restart: false,
            waiting: Vec::new(),
        };
        let default = Path::new(DEFAULT_DIR).canonicalize().is_ok_and(|default| default == plan.dir);
        let dir_hint = (!default).then(|| plan.dir.display().to_string());
        Self { slots: plan.nodes.iter().map(slot).collect(), ended, introduced: false, dir_hint }
    }

    fn start_all(&mut self) -> Result<(), Failure> {
        (0..self.slots.len()).try_for_each(|index| self.start(index)).map_err(Failure::error)
    }

    fn start(&mut self, index: usize) -> Result<(), String> {
        let slot = &mut self.slots[index];
        let started = child::start(index, &slot.spec, self.ended.clone());
        let orders = started.map_err(|error| format!("{} does not start: {error}", slot.spec.name))?;
        slot.orders = Some(orders);
        (slot.paused, slot.expected, slot.restart) = (false, false, false);
        Ok(())
    }

    fn on_end(&mut self, end: Ended) {
        let slot = &mut self.slots[end.index];
        slot.orders = None;
        let text = format!("{} {}", slot.spec.name, child::describe(&end.status));
        narrate::say(&text);
        let (waiting, restart) = (std::mem::take(&mut slot.waiting), slot.restart);
        let reply = match restart {
            true => self.start(end.index).map(|()| format!("{text} and was started again")),
            false => Ok(text),
        };
        waiting.into_iter().for_each(|waiting| drop(waiting.send(reply.clone())));
    }

    /// Nobody runs, and at least one went by itself: there is nothing left to watch. A
    /// cluster stopped node by node from another terminal may be started again.
    fn is_lost(&self) -> bool {
        self.slots.iter().all(|slot| slot.orders.is_none()) && self.slots.iter().any(|slot| !slot.expected)
    }

    fn on_question(&mut self, Asked { request, reply }: Asked) {
        let Some(index) = self.slots.iter().position(|slot| slot.spec.name == request.node) else {
            let names: Vec<&str> = self.slots.iter().map(|slot| slot.spec.name.as_str()).collect();
            let text = format!("there is no {}; the nodes are {}", request.node, names.join(", "));
            return drop(reply.send(Err(text)));
        };
        let slot = &mut self.slots[index];
        let name = slot.spec.name.clone();
        let done = match (request.action, &slot.orders) {
            (Action::Start | Action::Restart, None) => {
                self.start(index).map(|()| format!("{name} was started"))
            }
            (Action::Start, Some(_)) => Err(format!("{name} runs already")),
            (_, None) => Err(format!("{name} does not run; start it with `bellwether node start {name}`")),
            (Action::Pause | Action::Resume, Some(orders)) => {
                let (order, word) = match request.action {
                    Action::Pause => (Order::Pause, "paused"),
                    _ => (Order::Resume, "resumed"),
                };
                slot.paused = order == Order::Pause;
                send(orders, order);
                narrate::say(&format!("{name} {word}"));
                Ok(format!("{name} {word}"))
            }
            (action, Some(orders)) => {
                send(orders, if action == Action::Kill { Order::Kill } else { Order::Stop });
                slot.expected = true;
                slot.restart = action == Action::Restart;
                return slot.waiting.push(reply);
            }
        };
        drop(reply.send(done));
    }

    fn on_leader(&mut self, leads: &Leads) {
        let place = |slot: &Slot| (slot.spec.name.clone(), slot.spec.port);
        let Some(leader) = self.slots.iter().find(|slot| slot.spec.name == leads.name).map(place) else {
            return;
        };
        if self.introduced {
            let (name, port) = leader;
            return narrate::say(&format!("{name} leads now (term {}): http://localhost:{port}", leads.term));
        }
        self.introduced = true;
        let follower =
            self.slots.iter().find(|slot| slot.orders.is_some() && slot.spec.name != leads.name).map(place);
        let follower = follower.as_ref().map(|(name, port)| (name.as_str(), *port));
        narrate::say(&format!("{} leads (term {}). In another terminal:", leader.0, leads.term));
        narrate::plain(&narrate::what_to_try((&leader.0, leader.1), follower, self.dir_hint.as_deref()));
    }

    /// Lets every node drain; a second signal kills those that are left.
    async fn stop_all(&mut self, ends: &mut mpsc::UnboundedReceiver<Ended>, stop: &mut Stop) {
        narrate::say("Stopping every node (again to kill them)");
        self.order_all(Order::Stop);
        while self.slots.iter().any(|slot| slot.orders.is_some()) {
            tokio::select! {
                biased;
                () = stop.asked() => self.order_all(Order::Kill),
                Some(end) = ends.recv() => {
                    self.slots[end.index].restart = false;
                    self.on_end(end);
                }
            }
        }
    }

    fn order_all(&self, order: Order) {
        self.slots.iter().filter_map(|slot| slot.orders.as_ref()).for_each(|orders| send(orders, order));
    }
}

/// A process that has just ended takes no orders, and its end is on the way.
fn send(orders: &mpsc::UnboundedSender<Order>, order: Order) {
    let _ = orders.send(order);
}
