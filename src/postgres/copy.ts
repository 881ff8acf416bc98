import { Readable, Writable } from 'node:stream'
import type { Sql } from './pool.ts'

/** What a query of postgres.js calls when the server has answered; its types leave them out. */
interface QueryCallbacks {
  resolve: (answer: unknown) => void
  reject: (thrown: unknown) => void
}

/** Lets no other statement onto the connection until this one has its answer; the types leave it out. */
const alone: object = { onexecute: () => false }

/**
 * Says `text`, which begins with a COPY … FROM STDIN and may have other statements behind it, all in one transaction, and
 * sends it `pieces`. Resolves after the commit with the rows of the last of those statements, or with none. `onSending` is
 * called before the first byte leaves: from there on a failure may be a lost answer.
 *
 * postgres.js hands an error that comes after the last byte to the query, whose promise the stream has settled
 * already, so that neither of them ever tells (porsager/postgres 1173). And an error that comes together with the
 * server's consent destroys the stream before whoever awaits the query has seen it, which ends the process. Hence
 * the query's own callbacks are listened to.
 *
 * postgres.js would also send other statements behind it on a connection that is busy, into the middle of the COPY; and at
 * its end it says each time that it failed, which the server takes for the next one when that has begun already.
 *
 * @throws Whatever postgres.js says, unclassified.
 */
export function copyIn<Row extends object>(
  sql: Sql,
  text: string,
  pieces: Iterable<Buffer>,
  onSending?: () => void,
): Promise<readonly Row[]> {
  return new Promise((resolve, reject) => {
    const query = sql.unsafe(text, [], alone)
    const callbacks = query as unknown as QueryCallbacks
    const { resolve: resolveQuery, reject: rejectQuery } = callbacks
    callbacks.resolve = (stream) => {
      // When a connection that was lost is there again: postgres.js answers what it has rejected already, and must not stumble.
      if (!(stream instanceof Writable)) return reject(new Error('the server did not ask for what is copied'))
      // Called a second time when the server is ready again: with the answers of all statements, the COPY's first.
      callbacks.resolve = (answers) => resolve(rowsOfLast<Row>(answers))
      keepSilentAtEnd(stream)
      stream.on('error', reject)
      onSending?.()
      sendAll(stream, pieces)
      resolveQuery(stream)
    }
    callbacks.reject = (thrown) => {
      rejectQuery(thrown)
      reject(thrown)
    }
    query.writable().catch(reject)
  })
}

/**
 * Says `text`, one COPY … TO STDOUT, and resolves after its commit with what came, of each row a piece (PostgreSQL
 * documentation, 54.2.6 "COPY Operations"), and with what the format has before and behind them.
 *
 * postgres.js ends its stream when the last row has come, and the commit may fail after that; hence the query's own callbacks.
 *
 * @throws Whatever postgres.js says, unclassified.
 */
export function copyOut(sql: Sql, text: string): Promise<readonly Buffer[]> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = []
    const query = sql.unsafe(text, [], alone)
    const callbacks = query as unknown as QueryCallbacks
    const { resolve: resolveQuery, reject: rejectQuery } = callbacks
    callbacks.resolve = (stream) => {
      if (!(stream instanceof Readable)) return reject(new Error('the server did not send what is copied'))
      const ended = new Promise((end) => stream.on('end', end))
      // Called a second time when the server is ready again.
      callbacks.resolve = () => void ended.then(() => resolve(pieces))
      stream.on('data', (piece: Buffer) => pieces.push(piece))
      stream.on('error', reject)
      resolveQuery(stream)
    }
    callbacks.reject = (thrown) => {
      rejectQuery(thrown)
      reject(thrown)
    }
    query.readable().catch(reject)
  })
}

function keepSilentAtEnd(stream: Writable): void {
  const fail = stream._destroy
  stream._destroy = (error, done) => (error === null ? done(null) : fail.call(stream, error, done))
}

/** One statement is answered with its rows, several with a list of such. */
function rowsOfLast<Row extends object>(answers: unknown): readonly Row[] {
  const last = (answers as readonly unknown[]).at(-1)
  return Array.isArray(last) ? (last as Row[]) : []
}

/** Each piece when the one before has left, so that the copies of the driver are few. */
function sendAll(stream: Writable, pieces: Iterable<Buffer>): void {
  const left = pieces[Symbol.iterator]()
  const sendMore = () => {
    for (let next = left.next(); !next.done; next = left.next()) {
      if (!stream.write(next.value)) return void stream.once('drain', sendMore)
    }
    stream.end()
  }
  sendMore()
}
