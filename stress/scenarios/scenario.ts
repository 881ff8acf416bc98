import { account, describeAccount, expectedAccount, isExact } from '../account.ts'
import type { GeneratorOptions } from '../generator.ts'
import { Ledger } from '../ledger.ts'
import type { Ingress, Machine, Stage } from '../machine.ts'
import type { Report } from '../report.ts'
import { Sender } from '../sender.ts'
import { queueEmpty } from '../waiting.ts'

/** What every scenario is given. */
export interface ScenarioContext {
  machine: Machine
  report: Report
  seed: number
}

/** One thing that is brought about, and the lines of the table that it gives. */
export interface Scenario {
  readonly name: string
  play(context: ScenarioContext): Promise<void>
}

/** A stage with a ledger and a sender of its own. Markers carry the scenario's name, so none is ever mistaken. */
export async function setStage(
  { machine, seed }: ScenarioContext,
  name: string,
  { itemsMax, hangUps = true }: { itemsMax?: number; hangUps?: boolean } = {},
): Promise<{ stage: Stage; ledger: Ledger; senderTo: (...ingresses: Ingress[]) => Sender }> {
  const stage = await machine.stage(name)
  const ledger = new Ledger()
  let senders = 0
  return {
    stage,
    ledger,
    senderTo(...ingresses) {
      const run = `${name.replaceAll('-', '').slice(0, 10)}${(senders++).toString(36)}`
      const generator: GeneratorOptions = {
        seed: seed + senders,
        run,
        ...(itemsMax === undefined ? {} : { itemsMax }),
      }
      return new Sender({ generator, ledger, ingresses, hangUps })
    },
  }
}

const drainWithinMs = 30_000

/** Waits for the empty queue, ends the processes and checks the whole store against the ledger, as a line. */
export async function checkStore(
  { report }: ScenarioContext,
  stage: Stage,
  ledger: Ledger,
  what: string,
): Promise<void> {
  await queueEmpty(stage, drainWithinMs)
  await stage.terminate()
  const result = await account(stage, ledger)
  report.check(what, {
    expected: expectedAccount(ledger),
    seen: describeAccount(result),
    ok: isExact(result),
  })
}

/** Whether every one of these answers says when to come again, in whole seconds from 1 to 5. */
export function retryAfters(
  entries: readonly { answer: { kind: string; retryAfter?: string | undefined } }[],
): {
  seen: string
  ok: boolean
} {
  const values = new Set(entries.map(({ answer }) => answer.retryAfter ?? 'none'))
  return {
    seen: `Retry-After ${[...values].sort().join(' ')}`,
    ok: [...values].every((value) => /^[1-5]$/.test(value)),
  }
}
