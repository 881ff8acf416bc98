/** Something in the command line or the environment is not as it must be. */
export class WrongUsage extends Error {}
